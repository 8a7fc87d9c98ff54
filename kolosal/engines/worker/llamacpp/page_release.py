"""PageRelease: pages that hold nothing but zeros go back to the system, until they are written to. Linux only.

llama.cpp writes zeros to a new KV cache, by which all of it becomes resident: memory that other processes cannot have,
although most engines never fill their cache. Of a private anonymous mapping the kernel forgets a page when told so, and gives
a page of zeros at the next touch (madvise(2), MADV_DONTNEED): whoever reads or writes there notices nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_STATUS = Path("/proc/self/status")

_BLOCK = 1024 * 1024
"""Bytes looked at in one go: all zeros, or kept."""

_LEAST_BYTES = 8 * _BLOCK
"""Smaller mappings are left alone: what lives there is somebody's heap."""

_DONT_NEED = 4  # MADV_DONTNEED

Span = tuple[int, int]
"""Addresses, from the first to the one behind the last."""


class PageRelease:
    """The memory that a piece of work maps: made before that work, asked after it.

    What was mapped before is left alone, as other threads may be writing to it.
    """

    def __init__(self) -> None:
        self._before = _mapped()

    def release(self) -> int:
        """Give back what was mapped since and holds zeros; how many bytes that were. Elsewhere than on Linux 0.

        Nothing else may write to that memory meanwhile.
        """
        libc = ctypes.PyDLL(None) if sys.platform == "linux" else None
        if libc is None:
            return 0
        libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
        zeros = ctypes.create_string_buffer(_BLOCK)
        released = 0
        for start, end in without(_mapped(), self._before):
            for block in range(-(-start // _BLOCK) * _BLOCK, end - _BLOCK + 1, _BLOCK):
                if not _is_resident(libc, block):
                    continue  # it was never touched, and to look at it would
                is_empty = libc.memcmp(block, zeros, _BLOCK) == 0
                if is_empty and libc.madvise(block, _BLOCK, _DONT_NEED) == 0:
                    released += _BLOCK
        return released


def unload_pages_of(path: Path) -> None:
    """Let the pages of a mapped file go, of which llama.cpp made a copy: one that is read after all comes from the system's cache."""
    libc = ctypes.PyDLL(None) if sys.platform == "linux" else None
    if libc is None:
        return
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    name = os.fspath(path.resolve())
    for line in _lines(_MAPS):
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5] == name and "w" not in words[1]:
            start, _, end = words[0].partition("-")
            libc.madvise(int(start, 16), int(end, 16) - int(start, 16), _DONT_NEED)


def anonymous_bytes() -> int:
    """Resident memory of this process that no file is behind. Elsewhere than on Linux 0."""
    for line in _lines(_STATUS):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _is_resident(libc: ctypes.PyDLL, block: int) -> bool:
    """Whether any page of a block is; where the system does not say, it may be."""
    pages = ctypes.create_string_buffer(_BLOCK // mmap.PAGESIZE)
    return libc.mincore(block, _BLOCK, pages) != 0 or any(byte & 1 for byte in pages.raw)


def without(spans: Iterable[Span], others: Iterable[Span]) -> Iterator[Span]:
    """What of `spans` lies in none of `others`, as far as it is long enough. Both are in order and overlap in themselves nowhere."""
    taken = sorted(others)
    for start, end in spans:
        at = start
        for other_start, other_end in taken:
            if other_end <= at or other_start >= end:
                continue
            if other_start - at >= _LEAST_BYTES:
                yield at, other_start
            at = other_end
        if end - at >= _LEAST_BYTES:
            yield at, end


def _mapped() -> list[Span]:
    """The writable private mappings of this process that no file is behind; none where the system does not tell."""
    return [span for line in _lines(_MAPS) if (span := _anonymous(line)) is not None]


def _lines(path: Path) -> list[str]:
    """None where the system does not tell."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _anonymous(line: str) -> Span | None:
    words = line.split()
    if len(words) != 5 or words[1] != "rw-p":  # a sixth word is a file's name, or says what is special
        return None
    start, _, end = words[0].partition("-")
    return int(start, 16), int(end, 16)
