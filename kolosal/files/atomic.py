"""Writing files: the new one is whole on the disk before it takes the place of the old one, also where a file that somebody
reads cannot be replaced (Windows). What a process that was killed left behind is removed by the next one that holds the lock.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TRIES = 40 if sys.platform == "win32" else 1
PAUSE_S = 0.05
"""Readers, virus scanners among them, have a file open for a moment: two seconds are many of these."""

_NEW, _LOCK = ".tmp", ".lock"
_OLDER_NEW = ".new"
"""What versions up to 0.1 called the file that they were writing."""


def write_file(path: Path, *data: bytes | memoryview) -> None:
    """Put a file of this content, given whole or in parts, in the place of another, or where none was; only its owner may read it. Blocks until the
    disk has it. A folder that is missing is made.

    Raises:
        OSError: it cannot be done; the file there was is untouched.
    """
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=_NEW, dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(new, path)
        replace_file(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Only its owner may look into a folder that is made here; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as exc:
            raise NotADirectoryError(exc.errno, "its folder is a file", str(folder)) from exc


def replace_file(
    new: Path, old: Path, *, tries: int = TRIES, pause: Callable[[float], None] = time.sleep
) -> None:
    """Rename `new` to `old`, which may be there. Blocks while it is being read.

    Raises:
        OSError: it cannot be done, or not within two seconds; both files are as they were.
    """
    for _ in range(tries - 1):
        try:
            new.replace(old)
        except PermissionError:
            pause(PAUSE_S)
        else:
            return
    new.replace(old)


class FileLock:
    """Keeps other processes from writing a file. The system gives it back however a process ends.

    A file beside the other one, because that one is replaced, and a lock is of what is replaced.
    """

    def __init__(self, path: Path) -> None:
        """`path`: the file that is to be written."""
        self._path = path
        self._descriptor: int | None = None

    def take(self, wait_s: float = 0.0) -> None:
        """Take it, waiting for so long, and remove what was left behind of earlier files.

        Raises:
            BlockingIOError: another process has it.
            OSError: the folder cannot be written.
        """
        make_folder(self._path.parent)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self._path.with_name(self._path.name + _LOCK), flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, f"{self._path.name}{_LOCK} is no regular file")
            _lock(descriptor, time.monotonic() + wait_s)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        remove_leftovers(self._path)

    def close(self) -> None:
        """Give it back. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote this file have left. For the holder of its lock."""
    older = path.with_name(path.name + _OLDER_NEW)
    for left in (*path.parent.glob(f"{glob.escape(path.name)}.*{_NEW}"), older):
        with contextlib.suppress(OSError):
            left.unlink()


def _lock(descriptor: int, give_up_at: float) -> None:
    while True:
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                return  # a file system without locks: as good as it gets
            if exc.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise
            if time.monotonic() >= give_up_at:
                raise BlockingIOError(errno.EAGAIN, "another process is writing it") from None
            time.sleep(PAUSE_S)
        else:
            return


def _keep_owner(new: Path, old: Path) -> None:
    """A file that root writes stays that of the user the daemon runs as; a new one is that of its folder's owner."""
    if sys.platform != "win32" and os.geteuid() == 0:
        like = (old if old.exists() else old.parent).stat()
        os.chown(new, like.st_uid, like.st_gid)


def sync_folder(folder: Path) -> None:
    """Have the disk know the new name, where folders can be opened for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
