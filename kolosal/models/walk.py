"""Files below a folder, with bounds: a folder may be a whole disk, have loops of links, or lie on a disk that is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kolosal.models.file_version import FileVersion

MAX_DEPTH = 8
"""Folders within each other."""
MAX_FILES = 50_000
"""Names that are looked at in one folder and all below it."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file."""

    version: FileVersion
    added_at: float
    """Unix time at which it came to lie there."""


def gguf_files(root: Path) -> list[FoundFile]:
    """All `.gguf` files below a folder, by path. Links are followed, hidden folders are not. Reads the disk.

    A folder below that cannot be read is passed over; a root that does not exist holds nothing.

    Raises:
        OSError: the root is there and cannot be read.
    """
    left = [MAX_FILES]
    try:
        found = [*_below(root, 0, left, set())]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda file: str(file.version.path))


def _below(folder: Path, depth: int, left: list[int], seen: set[tuple[int, int]]) -> Iterator[FoundFile]:
    own = folder.stat()
    if (identity := (own.st_dev, own.st_ino)) in seen:
        return
    seen.add(identity)
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            left[0] -= 1
            if left[0] < 0:
                return
            try:
                if entry.name.lower().endswith(".gguf"):
                    if entry.is_file():
                        status = entry.stat()
                        yield FoundFile(FileVersion.of(Path(entry.path), status), status.st_ctime)
                elif entry.is_dir() and not entry.name.startswith("."):
                    folders.append(Path(entry.path))
            except OSError:  # gone since, or a link to nothing
                continue
    if depth == MAX_DEPTH:
        return
    for below in sorted(folders):
        try:
            yield from _below(below, depth + 1, left, seen)
        except OSError:  # it may not be read
            continue
