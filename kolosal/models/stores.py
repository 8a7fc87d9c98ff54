"""Store: a folder with models, of some program's layout. It says what lies there; no header is read for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kolosal.models.entry import Layer, LibraryModel, Source
from kolosal.models.file_version import FileVersion


@dataclass(frozen=True, slots=True)
class Found:
    """A model as it lies there, before its header was read."""

    name: str
    files: tuple[FileVersion, ...]
    """Its parts in order, the first one first."""
    added_at: float
    projector: FileVersion | None = None
    digest: str | None = None
    """SHA-256 of its file, where the store says it."""
    error: str | None = None
    """Why it is none, where the store knows that already."""
    layers: tuple[tuple[Layer, Path], ...] = ()
    """What the store says of it besides, in files of its own."""
    manifest: Path | None = None
    """The file by which the store has it, where it has one."""


class Store(Protocol):
    """A folder with models."""

    @property
    def source(self) -> Source:
        """Whose it is."""

    @property
    def folder(self) -> Path:
        """Where it is."""

    def scan(self) -> list[Found]:
        """What lies there now. Reads the disk.

        Raises:
            OSError: the folder is there and cannot be read.
        """

    def remove(self, model: LibraryModel) -> int:
        """Remove a model that lies here; the bytes that were freed. What other models need stays. Writes the disk.

        Raises:
            OSError: a file cannot be removed.
        """
