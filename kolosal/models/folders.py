"""Folders of `.gguf` files: those of the settings, LM Studio's, and the cache of Hugging Face."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from kolosal.engines.memory.model_files import PART_NAME
from kolosal.files.regular import read_file
from kolosal.models.entry import LibraryModel, Source
from kolosal.models.file_version import FileVersion
from kolosal.models.names import split_quantization, stem_of, usable
from kolosal.models.removal import remove_files
from kolosal.models.stores import Found
from kolosal.models.walk import FoundFile, gguf_files

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_REF_BYTES = 1024
_REPOSITORY = "models--"


@dataclass(frozen=True, slots=True)
class PlainFolder:
    """A folder of `.gguf` files, and of folders with such: a model's name is its path in there, without the suffix."""

    folder: Path
    source: Source = "folder"

    def scan(self) -> list[Found]:
        """See `Store`."""
        return [
            model.found((folder / model.stem).relative_to(self.folder).as_posix())
            for folder, models in _by_folder(gguf_files(self.folder))
            for model in models
        ]

    def remove(self, model: LibraryModel) -> int:
        """See `Store`."""
        return remove_files(_own_files(model), self.folder)


@dataclass(frozen=True, slots=True)
class LmStudioFolder:
    """LM Studio's folder: a model is `PUBLISHER/REPOSITORY:QUANTISATION`, by the folders it lies in."""

    folder: Path
    source: Source = "lm_studio"

    def scan(self) -> list[Found]:
        """See `Store`."""
        found: list[Found] = []
        for folder, models in _by_folder(gguf_files(self.folder)):
            repository = folder.relative_to(self.folder).as_posix()
            found += _named(repository if folder != self.folder else "", models)
        return found

    def remove(self, model: LibraryModel) -> int:
        """See `Store`."""
        return remove_files(_own_files(model), self.folder)


@dataclass(frozen=True, slots=True)
class HuggingFaceCache:
    """The cache of `huggingface_hub`: a model is `ORGANISATION/REPOSITORY:QUANTISATION`. Of several revisions the newest counts."""

    folder: Path
    source: Source = "huggingface"

    def scan(self) -> list[Found]:
        """See `Store`."""
        try:
            repositories = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        found: list[Found] = []
        for repository in repositories:
            if repository.name.startswith(_REPOSITORY):
                name = repository.name.removeprefix(_REPOSITORY).replace("--", "/")
                found += _named(name, [*_of_repository(repository)])
        return found

    def remove(self, model: LibraryModel) -> int:
        """See `Store`: the blobs, and the links of all revisions to them."""
        repository = self.folder / model.path.relative_to(self.folder).parts[0]
        blobs = {path.resolve() for path in _own_files(model)}
        links = [
            path
            for path in (repository / "snapshots").rglob("*")
            if path.resolve() in blobs and not path.is_dir()
        ]
        freed = remove_files(links, repository / "snapshots")
        freed += remove_files((blob for blob in blobs if blob.exists()), repository)
        if not any((repository / "snapshots").iterdir()):
            shutil.rmtree(repository)
        return freed


@dataclass(frozen=True, slots=True)
class FolderModel:
    """The files of one model in a folder."""

    files: tuple[FileVersion, ...]
    added_at: float
    projector: FileVersion | None

    @property
    def stem(self) -> str:
        """Its file's name without suffix and number."""
        return stem_of(self.files[0].path.name)

    def found(self, name: str) -> Found:
        """The model, called so."""
        return Found(usable(name), self.files, self.added_at, self.projector, _digest_in_cache(self.files))


def _own_files(model: LibraryModel) -> list[Path]:
    """A model's files, and its projector where no other model lies beside it."""
    files = [file.path for file in model.files]
    if model.projector is not None:
        others = {path for path in model.projector.path.parent.glob("*.gguf") if not _is_projector(path)}
        files += [] if others - {*files} else [model.projector.path]
    return files


def _is_projector(path: Path) -> bool:
    return path.name.lower().startswith("mmproj")


def models_of_folder(files: Sequence[FoundFile]) -> list[FolderModel]:
    """Files of one folder as models: parts belong together, and a projector to all that lie beside it."""
    versions = {file.version.path: file.version for file in files}
    added = {file.version.path: file.added_at for file in files}
    projectors = [path for path in versions if _is_projector(path)]
    projector = versions[projectors[0]] if projectors else None
    groups: dict[str, list[Path]] = {}
    for path in versions:
        if path not in projectors:
            part = PART_NAME.search(path.name)
            groups.setdefault(f"{stem_of(path.name)}/{part[2]}" if part else path.name, []).append(path)
    return [
        FolderModel(tuple(versions[path] for path in parts), added[parts[0]], projector)
        for parts in groups.values()
    ]


def _by_folder(files: Iterable[FoundFile]) -> Iterator[tuple[Path, list[FolderModel]]]:
    """Models by the folder they lie in."""
    in_order = sorted(files, key=lambda file: (str(file.version.path.parent), file.version.path.name))
    for folder, group in groupby(in_order, lambda file: file.version.path.parent):
        yield folder, models_of_folder([*group])


def _named(repository: str, models: Sequence[FolderModel]) -> Iterator[Found]:
    """Models of one repository: its name, and the quantisation of each, or its file's name where that says none."""
    tags = [split_quantization(model.stem)[1] for model in models]
    for model, tag in zip(models, tags, strict=True):
        if not repository:
            yield model.found(model.stem)
        elif len(models) == 1 and tag is None:
            yield model.found(repository)
        else:
            yield model.found(f"{repository}:{tag if tag and tags.count(tag) == 1 else model.stem}")


def _of_repository(repository: Path) -> Iterator[FolderModel]:
    """The models of the newest revision, and those that only older ones have."""
    seen: set[tuple[str, str]] = set()
    for snapshot in _snapshots(repository):
        for folder, models in _by_folder(gguf_files(snapshot)):
            for model in models:
                place = (folder.relative_to(snapshot).as_posix(), model.files[0].path.name)
                if place not in seen:
                    seen.add(place)
                    yield model


def _snapshots(repository: Path) -> list[Path]:
    """The folders of its revisions: that of `main` first, then the newest."""
    try:
        main = read_file(repository / "refs" / "main", _MAX_REF_BYTES).decode("ascii", "replace").strip()
    except OSError:
        main = ""
    try:
        with os.scandir(repository / "snapshots") as entries:
            times = {Path(entry.path): entry.stat().st_mtime for entry in entries if entry.is_dir()}
    except OSError:
        return []
    return sorted(times, key=lambda path: (path.name == main, times[path]), reverse=True)


def _digest_in_cache(files: Sequence[FileVersion]) -> str | None:
    """The digest of a file that is a link to a blob, which is called by it."""
    if len(files) > 1 or not files[0].path.is_symlink():
        return None
    name = files[0].path.readlink().name
    return name if _SHA256.fullmatch(name) else None
