"""SHA-256 digests of model files, each computed once as long as its file stays the same.

A large file takes a minute. It is read in pieces, in threads, one file at a time, and the work goes on when whoever asked
for it has left, so that the next one finds it done.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_PIECE_BYTES = 16 * 1024 * 1024
"""Read and hashed at once: some 10 ms of work, so that a daemon that stops waits no longer."""

_MAX_KEPT = 1024
"""Digests that are kept; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class DigestedFile:
    """A model file with its digest."""

    size: int
    """Bytes."""
    modified_at: datetime
    digest: str
    """64 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file at one time: the same as long as nobody writes it."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """A file as it is now. Reads the disk.

        Raises:
            OSError: it is gone or cannot be read.
        """
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)

    @property
    def modified_at(self) -> datetime:
        """When it was written."""
        return datetime.fromtimestamp(self.mtime_ns / 1e9, UTC)


class FileDigests:
    """Remembers digests. Used on the event loop only."""

    def __init__(self) -> None:
        self._known: dict[FileVersion, str] = {}
        self._running: dict[FileVersion, asyncio.Task[str]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def of(self, path: Path) -> DigestedFile | None:
        """Size, age and digest of a file; None where it is gone or cannot be read."""
        try:
            version = await asyncio.to_thread(FileVersion.of, path)
            digest = self._known.get(version) or await self._computed(version)
        except OSError:
            return None
        return DigestedFile(version.size, version.modified_at, digest)

    async def _computed(self, version: FileVersion) -> str:
        task = self._running.get(version)
        if task is None:
            task = asyncio.create_task(self._compute(version), name=f"digest {version.path.name}")
            self._running[version] = task
            task.add_done_callback(lambda done: self._ended(version, done))
        return await asyncio.shield(task)

    def _ended(self, version: FileVersion, task: asyncio.Task[str]) -> None:
        del self._running[version]
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._known) >= _MAX_KEPT:
            del self._known[next(iter(self._known))]
        self._known[version] = task.result()

    async def _compute(self, version: FileVersion) -> str:
        async with self._one_at_a_time:
            digest = hashlib.sha256()
            file = await asyncio.to_thread(version.path.open, "rb")
            try:
                while await asyncio.to_thread(_hash_piece, file, digest.update):
                    pass
            finally:
                file.close()
            return digest.hexdigest()


def _hash_piece(file: BinaryIO, update: Callable[[bytes], object]) -> bool:
    """Hash the next piece; False at the end of the file."""
    piece = file.read(_PIECE_BYTES)
    update(piece)
    return bool(piece)
