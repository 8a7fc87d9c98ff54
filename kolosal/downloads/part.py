"""A file that is being fetched: `NAME.part`, as long as there is something of it.

Owns what is on the disk before a file has its final name: how much is there, room for the rest, and the step from part to file.
One process at a time writes a part (`FileLock`). A part that was cut off anywhere, also by `kill -9`, is a shorter part.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

import orjson

from kolosal.downloads.plan import NO_VALIDATOR
from kolosal.errors import DownloadFailed, StorageFull
from kolosal.files.atomic import FileLock, replace_file, sync_folder, write_file
from kolosal.files.regular import FileTooLong, NotRegular, read_regular

SUFFIX = ".part"
LOCK_WAIT_S = 15.0
"""For a fetcher of the same file that is being ended."""
SPARE_BYTES = 256 * 1024 * 1024
"""What a download leaves of the disk's room: for logs, keys and lists, also the daemon's own."""

_FALLOC_KEEP_SIZE = 1
_MAX_ETAG_BYTES = 4096


def part_of(path: Path) -> Path:
    """Where a file is until it is whole."""
    return path.with_name(path.name + SUFFIX)


def present_bytes(path: Path) -> int:
    """How much of a file is there, as a whole or as a part. Blocks."""
    for each in (path, part_of(path)):
        try:
            return each.stat().st_size
        except OSError:
            continue
    return 0


def remove_part(path: Path) -> None:
    """Remove what is there of a file that is not whole. Blocks.

    Raises:
        OSError: it cannot be removed.
    """
    part = part_of(path)
    for each in (part, _etag_file(part), part.with_name(part.name + ".lock")):
        each.unlink(missing_ok=True)


class PartFile:
    """The part of one file, open for writing at its end. Close it."""

    def __init__(self, path: Path, etag: str | None) -> None:
        """What is there of another version (by `etag`) is dropped.

        Raises:
            DownloadFailed: another process is fetching the same file.
            OSError: the folder cannot be written.
        """
        self._path = path
        self._part = part_of(path)
        self._lock = FileLock(self._part)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.take(LOCK_WAIT_S)
        except BlockingIOError:
            raise DownloadFailed(f"Another process is fetching {path.name} just now") from None
        try:
            if self._part.is_symlink() or (self._part.exists() and not self._part.is_file()):
                raise NotRegular(errno.EINVAL, "is no regular file", str(self._part))
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
            self._descriptor = os.open(self._part, flags, 0o666)  # models are no secret: as the umask has it
        except BaseException:
            self._lock.close()
            raise
        try:
            if etag is not None and (etag == NO_VALIDATOR or etag != _read_etag(self._part)):
                os.ftruncate(self._descriptor, 0)
                write_file(_etag_file(self._part), orjson.dumps({"etag": etag}))
            self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
        except BaseException:
            self.close()
            raise

    def read_from(self, offset: int, buffer: bytearray) -> int:
        """Read what is there already."""
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        data = os.read(self._descriptor, len(buffer))
        os.lseek(self._descriptor, 0, os.SEEK_END)
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: memoryview) -> None:
        """Add something at the end.

        Raises:
            StorageFull: the disk is full.
            OSError: it cannot be written.
        """
        try:
            while data:
                written = os.write(self._descriptor, data)
                self.size += written
                data = data[written:]
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise no_room(self._path, len(data), 0) from None
            raise

    def restart(self) -> None:
        """Drop what is there."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.size = 0

    def reserve(self, size: int) -> None:
        """Make sure of room for a file of this size, so that nobody else takes it meanwhile, where the system can do that.

        Raises:
            StorageFull: there is not as much.
        """
        more = size - self.size
        if more <= 0:
            return
        free = shutil.disk_usage(self._path.parent).free + self._allocated_beyond()
        if free < more + SPARE_BYTES:
            raise no_room(self._path, more, max(0, free - SPARE_BYTES))
        if sys.platform == "linux" and not _allocate(self._descriptor, self.size, more):
            raise no_room(self._path, more, free)

    def _allocated_beyond(self) -> int:
        """Bytes that were reserved before: `st_blocks` counts 512 bytes each."""
        blocks = getattr(os.fstat(self._descriptor), "st_blocks", 0)
        return max(0, blocks * 512 - self.size)

    def finish(self) -> None:
        """Give the whole file its name, once the disk has all of it.

        Raises:
            OSError: it cannot be done.
        """
        os.ftruncate(self._descriptor, self.size)
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        replace_file(self._part, self._path)
        sync_folder(self._path.parent)
        self._lock.close()
        remove_part(self._path)

    def close(self) -> None:
        """Leave it as it is, without the room that was reserved. Idempotent."""
        if self._descriptor != -1:
            os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_END))
            os.close(self._descriptor)
            self._descriptor = -1
        self._lock.close()


def no_room(path: Path, needed: int, free: int) -> StorageFull:
    """The error about a disk that is too small."""
    return StorageFull(
        f"There is no room for {path.name} in {path.parent}: it needs {needed / 1e9:.2f} GB more,"
        f" and {free / 1e9:.2f} GB are free"
    )


def _allocate(descriptor: int, offset: int, count: int) -> bool:
    """Take room without making the file longer; False where there is none. What a file system cannot do is left undone."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return call(descriptor, _FALLOC_KEEP_SIZE, offset, count) == 0 or ctypes.get_errno() not in (
        errno.ENOSPC,
        errno.EDQUOT,
    )


def _etag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _read_etag(part: Path) -> str | None:
    try:
        body = orjson.loads(read_regular(_etag_file(part), _MAX_ETAG_BYTES))
    except (OSError, ValueError, FileTooLong):
        return None
    etag = body.get("etag") if isinstance(body, dict) else None
    return etag if isinstance(etag, str) else None
