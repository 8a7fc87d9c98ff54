"""ModelStore: the model files of one machine of the cluster. Blocks on the disk.

A file is taken where the head has it (a shared folder, or machines that are set up alike) if it looks the same there. Else it lies
in this machine's cache under its SHA-256, where it was sent from the head, piece by piece. All parts of a model lie in one folder.
"""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from kolosal.engines.memory.model_files import PART_NAME
from kolosal.engines.parameters import LLAMACPP, FittedConfig

PIECE_BYTES = 4 * 1024 * 1024
"""Of a file, at once."""

_END_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileWanted:
    """A file of a model as the head has it."""

    path: str
    size: int
    print: str
    """SHA-256 of its first and its last mebibyte."""
    folder: str = ""
    """What the folder of this model is called in a cache, once that is known."""
    digest: str = ""
    """SHA-256 of this file, once it is known."""


def files_of(config: FittedConfig) -> tuple[FileWanted, ...]:
    """The files that a worker over llama.cpp loads: all parts of the model, and the draft model. What another backend loads must be on
    each machine.

    Raises:
        OSError: one cannot be read.
    """
    if config.backend != LLAMACPP or not config.model_path:
        return ()
    draft = config.parameters.draft_model_path
    paths = [*_parts(Path(config.model_path)), *([] if draft is None else _parts(Path(draft)))]
    return tuple(FileWanted(str(path), path.stat().st_size, _print(path)) for path in paths)


def with_digests(files: tuple[FileWanted, ...]) -> tuple[FileWanted, ...]:
    """The same, read whole.

    Raises:
        OSError: one cannot be read.
    """
    digests = [_sha256(Path(file.path)) for file in files]
    folder = hashlib.sha256("".join(digests).encode()).hexdigest()
    return tuple(
        replace(file, folder=folder, digest=digest) for file, digest in zip(files, digests, strict=True)
    )


def _parts(path: Path) -> list[Path]:
    part = PART_NAME.search(path.name)
    if part is None:
        return [path]
    stem = path.name[: part.start()]
    return sorted(path.parent.glob(f"{glob.escape(stem)}-[0-9][0-9][0-9][0-9][0-9]-of-{part[2]}.gguf"))


class ModelStore:
    """What this machine has."""

    def __init__(self, cache: Path | None = None) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._cache = cache or Path(base) / "kolosal" / "cluster"

    def missing(self, files: tuple[FileWanted, ...]) -> tuple[FileWanted, ...]:
        """Those that are not here."""
        return tuple(file for file in files if self._found(file) is None)

    def with_paths_of_here(self, config: FittedConfig, files: tuple[FileWanted, ...]) -> FittedConfig:
        """What to load, with the paths of this machine."""
        found = {file.path: str(self._found(file) or file.path) for file in files}
        draft = config.parameters.draft_model_path
        parameters = config.parameters
        if draft is not None:
            parameters = replace(parameters, draft_model_path=found.get(draft, draft))
        path = found.get(config.model_path, config.model_path)
        return replace(config, model_path=path, parameters=parameters)

    def receive(self, file: FileWanted, offset: int, piece: bytes) -> None:
        """Keep a piece; with the last one the file is there.

        Raises:
            OSError: the disk does not take it.
            ValueError: its digest is another one, or the piece is not the next.
        """
        target = self._cached(file)
        partial = target.with_name(
            f"{target.name}.{os.getpid()}.part"
        )  # another worker here may be sent it, too
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab" if offset else "wb") as out:
            if out.tell() != offset:
                raise ValueError(f"{target.name}: {out.tell()} bytes are there, and those from {offset} came")
            out.write(piece)
        if offset + len(piece) < file.size:
            return
        if _sha256(partial) != file.digest:
            partial.unlink()
            raise ValueError(f"{target.name} is another file than the head's: its SHA-256 differs")
        partial.replace(target)

    def _cached(self, file: FileWanted) -> Path:
        return self._cache / file.folder / Path(file.path).name

    def _found(self, file: FileWanted) -> Path | None:
        places = [Path(file.path)] + ([self._cached(file)] if file.digest else [])
        return next((place for place in places if _looks_like(place, file)), None)


def _looks_like(path: Path, file: FileWanted) -> bool:
    try:
        return path.is_file() and path.stat().st_size == file.size and _print(path) == file.print
    except OSError:
        return False


def _print(path: Path) -> str:
    with path.open("rb") as file:
        ends = file.read(_END_BYTES)
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return hashlib.sha256(ends + file.read(_END_BYTES)).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
