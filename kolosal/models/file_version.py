"""FileVersion: a file at one time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file at one time: the same as long as nobody writes it."""

    path: Path
    size: int
    """Bytes."""
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result | None = None) -> FileVersion:
        """A file as it is now, or as `status` says. Reads the disk.

        Raises:
            OSError: it is gone or cannot be read.
        """
        status = status or path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)

    @property
    def modified_at(self) -> datetime:
        """When it was written."""
        return datetime.fromtimestamp(self.mtime_ns / 1e9, UTC)
