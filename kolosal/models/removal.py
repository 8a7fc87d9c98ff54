"""Removing files of a model from folders: what is left empty goes with them, what others need stays. Blocks on the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path


def remove_files(paths: Iterable[Path], root: Path) -> int:
    """Remove files, and the folders below `root` that are empty then; the bytes that were freed. Of a link only the link goes.

    Raises:
        OSError: one cannot be removed; those before it are gone.
    """
    freed = 0
    for path in paths:
        status = path.lstat()
        path.unlink()
        freed += status.st_size if status.st_nlink == 1 else 0
        remove_empty(path.parent, root)
    return freed


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those above it as long as they are empty, up to `root`, which stays."""
    with contextlib.suppress(OSError):  # not empty
        while folder != root and folder.is_relative_to(root):
            folder.rmdir()
            folder = folder.parent
