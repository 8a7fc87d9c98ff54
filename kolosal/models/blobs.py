"""BlobStore: model files that clients send, by the digest of what they hold, until a model is made of them.

A file has its name only when all of it is on the disk and has that digest. What an upload leaves that was cut off goes with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from kolosal.errors import InvalidRequest, ServerBusy, StorageFull
from kolosal.files.atomic import make_folder
from kolosal.files.in_thread import in_thread

MAX_UPLOADS = 2
"""Files that are taken in at the same time."""

RESERVE_BYTES = 256 * 1024 * 1024
"""What an upload leaves free on the disk."""

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_PART_PREFIX, _PART_AGE_S = "upload-", 86_400.0
_CHUNK_BYTES = 4 * 1024 * 1024


def checked_digest(digest: str) -> str:
    """The hexadecimal digits of a digest.

    Raises:
        InvalidRequest: it is none, whatever else it may be as the name of a file.
    """
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise InvalidRequest(
            f"a digest must be sha256: and 64 hexadecimal digits, not {digest[:80]!r}", param="digest"
        )
    return found[1].lower()


class BlobStore:
    """The files of one folder. Used on the event loop only."""

    def __init__(self, folder: Path) -> None:
        """The folder is on the disk of the models, so that a file becomes one without being copied."""
        self.folder = folder
        self._n_uploads = 0

    def path(self, digest: str) -> Path:
        """Where the file of a digest is, or would be. Raises as `checked_digest`."""
        return self.folder / f"sha256-{checked_digest(digest)}"

    async def has(self, digest: str) -> bool:
        """Whether there is such a file."""
        return await in_thread(self.path(digest).is_file)

    async def take(self, digest: str, chunks: AsyncIterator[bytes], announced: int) -> None:
        """Take in a file of `announced` bytes, where that is known.

        Raises:
            InvalidRequest: it has another digest.
            StorageFull: there is no room for it.
            ServerBusy: others are being taken in already.
        """
        target = self.path(digest)
        if self._n_uploads >= MAX_UPLOADS:
            raise ServerBusy(
                f"{MAX_UPLOADS} files are being taken in already, as many as may", retry_after_s=10
            )
        self._n_uploads += 1
        try:
            upload = await in_thread(_Upload.begin, self.folder, announced)
            try:
                async for chunk in chunks:
                    if upload.add(chunk):
                        await in_thread(upload.write)
                await in_thread(upload.finish, target)
            finally:
                await asyncio.shield(in_thread(upload.close))
        except OSError as exc:
            raise StorageFull(f"the file cannot be written: {exc.strerror or exc}") from exc
        finally:
            self._n_uploads -= 1


class _Upload:
    """A file that comes in. Its methods block but for `add`; one is called at a time."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._hash = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._n_waiting = 0

    @classmethod
    def begin(cls, folder: Path, announced: int) -> _Upload:
        make_folder(folder)
        _remove_old_parts(folder)
        _check_room(folder, announced)
        handle, name = tempfile.mkstemp(prefix=_PART_PREFIX, dir=folder)
        return cls(Path(name), os.fdopen(handle, "wb"))

    def add(self, chunk: bytes) -> bool:
        """Take a chunk; whether so much waits that it is to be written."""
        self._waiting.append(chunk)
        self._n_waiting += len(chunk)
        return self._n_waiting >= _CHUNK_BYTES

    def write(self) -> None:
        _check_room(self._path.parent, self._n_waiting)
        for chunk in self._waiting:
            self._hash.update(chunk)
            self._file.write(chunk)
        self._waiting, self._n_waiting = [], 0

    def finish(self, target: Path) -> None:
        self.write()
        found = self._hash.hexdigest()
        if target.name != f"sha256-{found}":
            raise InvalidRequest(
                f"the digest of what was sent is sha256:{found}, not {target.name.replace('-', ':')}",
                param="digest",
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(target)

    def close(self) -> None:
        """Let it go, whole or not. Idempotent."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


def _check_room(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes + RESERVE_BYTES > free:
        raise StorageFull(
            f"there is no room for {n_bytes / 2**20:.0f} MiB more in {folder}: {free / 2**20:.0f} MiB are free,"
            f" of which {RESERVE_BYTES / 2**20:.0f} MiB stay so"
        )


def _remove_old_parts(folder: Path) -> None:
    """What a daemon that was killed left."""
    for part in folder.glob(f"{_PART_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _PART_AGE_S:
                part.unlink()
