"""ModelFileCache: what a model file holds, read once as long as the file stays the same.

To hash a large file takes a minute. Files are read one at a time, and the work goes on when whoever asked for it has left,
so that the next one finds it done.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from io import FileIO
from pathlib import Path
from typing import Any, Generic, TypeVar

from kolosal.errors import ModelFileError
from kolosal.files.in_thread import in_thread
from kolosal.files.regular import open_regular
from kolosal.models.file_version import FileVersion

T = TypeVar("T")

_PIECE_BYTES = 16 * 1024 * 1024
"""Read and hashed at once: some 10 ms of work, so that a daemon that stops waits no longer."""


def _any(_path: Path) -> None:
    """Files of which all may be read."""


class ModelFileCache(Generic[T]):
    """Remembers what `read` gave of files. Used on the event loop only."""

    def __init__(self, read: Callable[[Path], Coroutine[Any, Any, T]], max_kept: int) -> None:
        """Of more than `max_kept` files the one that was least recently asked for is forgotten."""
        self._read = read
        self._max_kept = max_kept
        self._known: OrderedDict[FileVersion, T] = OrderedDict()
        self._running: dict[FileVersion, asyncio.Task[T]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def of(self, path: Path, check: Callable[[Path], None] = _any) -> tuple[FileVersion, T] | None:
        """Size, age and content of a file; None where it is gone, cannot be read, or `check` raises. `check` blocks."""
        try:
            await in_thread(check, path)
            version = await in_thread(FileVersion.of, path)
            if version in self._known:
                self._known.move_to_end(version)
                return version, self._known[version]
            if version not in self._running:
                task = asyncio.create_task(self._read_alone(path), name=f"read {path.name}")
                self._running[version] = task
                task.add_done_callback(lambda done: self._ended(version, done))
            return version, await asyncio.shield(self._running[version])
        except (OSError, ModelFileError):
            return None

    async def _read_alone(self, path: Path) -> T:
        async with self._one_at_a_time:
            return await self._read(path)

    def _ended(self, version: FileVersion, task: asyncio.Task[T]) -> None:
        del self._running[version]
        if task.cancelled() or task.exception() is not None:
            return
        self._known[version] = task.result()
        if len(self._known) > self._max_kept:
            self._known.popitem(last=False)


async def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; read in pieces, in threads.

    Raises:
        OSError: it is gone or cannot be read.
    """
    digest = hashlib.sha256()
    file = await in_thread(open_regular, path)
    try:
        while await in_thread(_hash_piece, file, digest.update):
            pass
    finally:
        file.close()
    return digest.hexdigest()


def _hash_piece(file: FileIO, update: Callable[[bytes], object]) -> bool:
    """Hash the next piece; False at the end of the file."""
    piece = file.read(_PIECE_BYTES)
    update(piece)
    return bool(piece)
