"""Opening files to read: what is not a regular file is refused before it is opened.

A FIFO would wait for a writer, a terminal for a person, and some devices do something when they are opened. A path that was a
file when it was configured may have become any of these, so everything in Kolosal that opens a file opens it here.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from kolosal.files.deadline import LIMIT_S, within

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # for what became a FIFO since it was looked at
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegular(OSError):
    """The path leads to something that is no file with content of its own."""


class FileTooLong(OSError):
    """The file is longer than what it is taken for can be."""


def open_regular(path: Path) -> io.FileIO:
    """Open a file for reading, without a buffer. Blocks while the disk does: elsewhere than in a worker or a thread
    of `in_thread` use `read_regular`.

    Raises:
        NotRegular: it is a folder, pipe, socket or device.
        OSError: it cannot be opened.
    """
    _check(os.stat(path), path)  # noqa: PTH116 - as below
    descriptor = os.open(path, _FLAGS)
    try:
        _check(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return io.FileIO(descriptor)


def read_regular(path: Path, max_bytes: int, *, limit_s: float = LIMIT_S) -> bytes:
    """The whole content of a file of at most `max_bytes` bytes.

    Raises:
        NotRegular: it is a folder, pipe, socket or device.
        FileTooLong: it is longer.
        NoAnswer: the disk does not answer within `limit_s` seconds.
        OSError: it cannot be read.
        ValueError: it is no path, as it holds a NUL.
    """
    return within(limit_s, read_file, path, max_bytes)


def is_regular(path: Path) -> bool:
    """Whether there is such a file; False where we may not look, where it can be no path, and where the disk is silent."""
    try:
        return within(LIMIT_S, path.is_file)
    except (OSError, ValueError):
        return False


def read_file(path: Path, max_bytes: int) -> bytes:
    """The same for what runs in a thread of `in_thread` already.

    Raises:
        OSError: as `read_regular`, without `NoAnswer`.
    """
    with io.BufferedReader(open_regular(path)) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise FileTooLong(errno.EFBIG, f"it is longer than {max_bytes} bytes", str(path))
    return content


def _check(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(found.st_mode)), "something else")
        raise NotRegular(errno.EINVAL, f"not a regular file, but {kind}", str(path))
