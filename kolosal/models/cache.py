"""What is kept of model files over restarts: what their headers said, their digests, and when they were last used.

A cache: what is damaged or cannot be written is made again. Both functions block on the disk.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from kolosal.files.atomic import write_file
from kolosal.files.regular import read_file
from kolosal.models.entry import ModelFacts
from kolosal.models.file_version import FileVersion

log = logging.getLogger(__name__)

FILE_NAME = "library.json"

VERSION = 1
"""Of what is kept; a file of another version is not read."""

_MAX_FILE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """What the header of a model said, or why it could not be read, when its files were these."""

    files: tuple[FileVersion, ...]
    said: ModelFacts | str


@dataclass(frozen=True, slots=True)
class FileDigest:
    """The SHA-256 of a file when it was this."""

    file: FileVersion
    sha256: str


@dataclass(slots=True)
class Kept:
    """Everything by the path of a model's first file."""

    version: int = VERSION
    readings: dict[str, Reading] = field(default_factory=dict)
    digests: dict[str, FileDigest] = field(default_factory=dict)
    used_at: dict[str, float] = field(default_factory=dict)
    """Unix times."""


_kept: TypeAdapter[Kept] = TypeAdapter(Kept)


def load_kept(path: Path) -> Kept:
    """What a file says; nothing where there is none that can be used."""
    try:
        found = _kept.validate_json(read_file(path, _MAX_FILE_BYTES))
    except FileNotFoundError:
        return Kept()
    except (OSError, ValidationError, RecursionError) as exc:
        log.info("library.cache_not_read", extra={"path": str(path), "reason": type(exc).__name__})
        return Kept()
    return found if found.version == VERSION else Kept()


def save_kept(path: Path, kept: Kept) -> None:
    """Have a file say it."""
    try:
        write_file(path, orjson.dumps(kept, default=str))
    except OSError as exc:
        log.warning("library.cache_not_saved", extra={"path": str(path), "reason": exc.strerror or str(exc)})
