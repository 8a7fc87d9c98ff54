"""SavedFiles: saved sequences as files, which outlive the worker and the daemon.

A file holds a sequence's tokens, its scope and its state. It is found again by an engine whose model and parameters make the same
cells (`Backend.state_key`): each such kind has a folder of its own. What is damaged, cut short, of another version or of another
kind is deleted and never given to llama.cpp. All files of all engines together take `max_bytes` at most; those that nobody had use
for the longest go first. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kolosal.files.atomic import write_file
from kolosal.files.regular import open_regular

SUFFIX = ".kv"

_HEAD = struct.Struct("<8s32sIIQ16s")
"""Magic with the version of this format, key, tokens, bytes of the scope, bytes of the state, checksum of the state."""

_MAGIC = b"KOLKV\x001\n"
_CHECKSUM_BYTES = 16
_MAX_TOKENS, _MAX_SCOPE_BYTES = 1 << 28, 1 << 16

_LEFT_BEHIND_S = 600.0
"""A file that is being written has been for less; one that is older was left by a process that was killed."""


class Damaged(Exception):
    """A file that is not what was written, or of another version or kind."""


@dataclass(frozen=True, slots=True)
class SavedFile:
    """What a file is of."""

    path: Path
    tokens: list[int]
    scope: str


class SavedFiles:
    """The files of one kind of state, and the bound of all."""

    def __init__(self, root: Path, max_bytes: int, key: bytes) -> None:
        self._root, self._max_bytes = root, max_bytes
        self._key = hashlib.sha256(key).digest()
        self._folder = root / self._key.hex()[:32]

    @property
    def n_bytes(self) -> int:
        """What the files of this kind take."""
        return sum(size for _, size, _ in _listed(self._folder))

    def scan(self) -> Iterator[SavedFile]:
        """What there is, the last used first. Other files of the folder are deleted."""
        for _, _, path in sorted(_listed(self._folder), reverse=True):
            try:
                with open_regular(path) as file:
                    tokens, scope, _, _ = self._read_head(file.fileno())
            except Damaged:
                self.delete(path)
            except OSError:
                continue
            else:
                yield SavedFile(path, tokens, scope)
        for path in self._folder.glob("*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
                    path.unlink()

    def write(self, tokens: list[int], scope: str, state: memoryview) -> Path | None:
        """Make a file that only its owner may read; None where it is larger than all may be.

        Raises:
            OSError: it cannot be written.
        """
        of_scope, of_tokens = scope.encode(), _bytes_of(tokens)
        head = (
            _HEAD.pack(_MAGIC, self._key, len(tokens), len(of_scope), state.nbytes, _checksum(state))
            + of_scope
            + of_tokens
        )
        head += _checksum(head)
        path = self._folder / (hashlib.sha256(of_scope + b"\0" + of_tokens).hexdigest()[:32] + SUFFIX)
        if not self._make_room(len(head) + state.nbytes):
            return None
        write_file(path, head, state)
        return path

    def read(self, path: Path) -> memoryview | None:
        """The state of a file; None where it is gone or damaged, and then deleted."""
        try:
            with open_regular(path) as file:
                _, _, n_bytes, checksum = self._read_head(file.fileno())
                state = memoryview(bytearray(n_bytes))
                n_read = 0
                while n_read < n_bytes and (n := file.readinto(state[n_read:])):
                    n_read += n
            if n_read < n_bytes or _checksum(state) != checksum:
                raise Damaged
            os.utime(path)
        except (Damaged, OSError, MemoryError):
            self.delete(path)
            return None
        return state

    @staticmethod
    def delete(path: Path) -> None:
        """Remove a file, if it is there and can be."""
        with contextlib.suppress(OSError):
            path.unlink()

    def _read_head(self, descriptor: int) -> tuple[list[int], str, int, bytes]:
        """Tokens, scope, bytes and checksum of the state, which is what is left to be read.

        Raises:
            Damaged: it cannot be that.
            OSError: it cannot be read.
        """
        fixed = os.read(descriptor, _HEAD.size)
        if len(fixed) < _HEAD.size:
            raise Damaged
        magic, key, n_tokens, n_scope, n_bytes, checksum = _HEAD.unpack(fixed)
        if magic != _MAGIC or key != self._key or n_tokens > _MAX_TOKENS or n_scope > _MAX_SCOPE_BYTES:
            raise Damaged
        n_rest = n_scope + 4 * n_tokens + _CHECKSUM_BYTES
        if os.fstat(descriptor).st_size != _HEAD.size + n_rest + n_bytes:
            raise Damaged
        rest = os.read(descriptor, n_rest)
        body, of_head = rest[:-_CHECKSUM_BYTES], rest[-_CHECKSUM_BYTES:]
        if _checksum(fixed + body) != of_head:
            raise Damaged
        return _tokens_of(body[n_scope:]), body[:n_scope].decode(), n_bytes, checksum

    def _make_room(self, n_bytes: int) -> bool:
        """Delete what was not used for the longest, of all kinds, until so many bytes more fit."""
        files = sorted(each for folder in self._root.glob("*") for each in _listed(folder))
        used = sum(size for _, size, _ in files)
        for _, size, path in files:
            if used + n_bytes <= self._max_bytes:
                break
            self.delete(path)
            used -= size
        return n_bytes <= self._max_bytes


def _listed(folder: Path) -> list[tuple[float, int, Path]]:
    """When each was used last, its size, and where it is."""
    found = []
    for path in folder.glob("*" + SUFFIX):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found


def _checksum(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).digest()


def _bytes_of(tokens: list[int]) -> bytes:
    return array("i", tokens).tobytes()


def _tokens_of(data: bytes) -> list[int]:
    tokens = array("i")
    tokens.frombytes(data)
    return tokens.tolist()
