"""Model paths: the only place that turns a name given by a client or a file into a path of a model.

Owns the checks of `model_path`: it is in a folder that models may come from, exists, is a regular file (never a device or
a pipe), ends in `.gguf`, begins like a GGUF file and has a header that makes sense, in all its parts. Blocks on the disk, so
the event loop calls it in a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import TypeAlias

from kolosal.config.models import ModelEntry
from kolosal.engines.memory.gguf import GGUF_MAGIC
from kolosal.engines.memory.model_files import PART_NAME, model_path_error, read_shape, shown_path
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.errors import ModelFileError

_SHOWN_FILES = 8
"""How many files of an ambiguous directory a message names."""


class Anywhere(Enum):
    """That models may come from any folder."""

    ON_THIS_MACHINE = auto()
    """For requests, where no folders are set."""
    AT_ALL = auto()
    """For what the operator wrote: also shares of other machines."""


Roots: TypeAlias = tuple[Path, ...] | Anywhere
"""Folders that models may come from. An empty tuple: none."""


@dataclass(frozen=True, slots=True)
class ModelRoots:
    """Where models that requests add may come from."""

    given: tuple[Path, ...]
    """The setting `engines.model_roots`."""
    configured: tuple[Path, ...]
    """The folders of the models of the configuration."""

    @classmethod
    def of(cls, given: Iterable[str], models: Iterable[ModelEntry]) -> ModelRoots:
        """As the settings say. A model's folder is the one given, or the one its file is in."""
        files = [
            Path(path) for each in models for path in (each.path, each.parameters.draft_model_path) if path
        ]
        folders = (file.parent if file.suffix.lower() == ".gguf" else file for file in files)
        return cls(
            tuple(_absolute(Path(root).expanduser()) for root in given),
            tuple(dict.fromkeys(map(_absolute, folders))),
        )

    def allowed(self, keys_needed: bool) -> Roots:
        """The folders that count: without keys and setting, all do; with keys and no setting, those of known models."""
        if self.given:
            return self.given
        return self.configured if keys_needed else Anywhere.ON_THIS_MACHINE


def engine_config(
    engine_id: str, model_path: str, parameters: LoadingParameters, *, roots: Roots
) -> EngineConfig:
    """An engine whose files are there, lie where they may, and have headers that can be read.

    No worker is started for a damaged file.

    Raises:
        ModelFileError: a path names no model that may be loaded; `param` is the field it came from.
    """
    check_part = partial(_confine, roots=roots)
    path = model_file(model_path, roots)
    read_shape(path, check_part)
    if parameters.draft_model_path is not None:
        try:
            draft = model_file(parameters.draft_model_path, roots)
            read_shape(draft, check_part)
        except ModelFileError as exc:
            exc.param = "draft_model_path"
            raise
        parameters = replace(parameters, draft_model_path=str(draft))
    return EngineConfig(engine_id, str(path), parameters)


def model_file(model_path: str, roots: Roots = Anywhere.ON_THIS_MACHINE) -> Path:
    """The absolute path of the one model that `model_path` names: a `.gguf` file, or a directory that holds one.

    A relative path starts at the daemon's working directory. Links are followed but kept in the result, because the
    target of a link in a download cache has no suffix.

    Raises:
        ModelFileError: it names no such model; the code says why.
    """
    if not model_path or "\0" in model_path:
        raise model_path_error(
            "model_path_not_found", f"model_path is {shown_path(model_path)}, which no file can be called"
        )
    if roots is Anywhere.ON_THIS_MACHINE and os.name == "nt" and is_network_path(model_path):
        raise _outside()
    path = Path(model_path).absolute()
    _confine(path, roots)
    mode = _mode(path, model_path)
    if stat.S_ISDIR(mode):
        path = _only_model_in(path, model_path)
        _confine(path, roots)
    elif not stat.S_ISREG(mode):
        raise model_path_error(
            "invalid_model_path_type", f"{shown_path(model_path)} is neither a file nor a directory"
        )
    _check_is_gguf(path)
    return path


def is_network_path(path: str) -> bool:
    r"""Whether Windows takes it for `\\host\share`, opening which tells that host who we are, or for a device."""
    return PureWindowsPath(path).drive.startswith("\\\\")


def _confine(path: Path, roots: Roots) -> None:
    """Refuse what lies outside, in the same words whether it exists or not. Nothing outside is touched."""
    if isinstance(roots, Anywhere):
        return
    if ".." in path.parts or not _is_within(path, roots):
        raise _outside()
    try:
        target = path.resolve()
        folders = tuple(root.resolve() for root in roots)
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no path on this system
        raise _outside() from None
    if not _is_within(target, folders):
        raise _outside()


def _is_within(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _absolute(path: Path) -> Path:
    """Absolute, and without `..`: what is below it is compared with it part by part."""
    return Path(os.path.normpath(path.absolute()))


def _outside() -> ModelFileError:
    return model_path_error(
        "model_path_access_denied",
        "model_path is not in a folder that models may be loaded from: the setting engines.model_roots names these",
    )


def _mode(path: Path, given: str) -> int:
    try:
        return path.stat().st_mode
    except PermissionError:
        raise _access_denied(given) from None
    except (OSError, ValueError):  # missing, too long, a loop of links, or not a path on this system
        raise model_path_error(
            "model_path_not_found",
            f"{shown_path(given)} does not exist on the machine the server runs on"
            " (a relative path starts at the server's working directory)",
        ) from None


def _only_model_in(directory: Path, given: str) -> Path:
    try:
        models = sorted(path for path in directory.iterdir() if _is_model_name(path.name) and path.is_file())
    except OSError:
        raise _access_denied(given) from None
    if not models:
        raise model_path_error(
            "model_file_not_found", f"The directory {shown_path(given)} holds no .gguf model"
        )
    if len(models) > 1:
        names = ", ".join(shown_path(path.name) for path in models[:_SHOWN_FILES])
        more = f" and {len(models) - _SHOWN_FILES} more" if len(models) > _SHOWN_FILES else ""
        raise model_path_error(
            "model_file_ambiguous",
            f"The directory {shown_path(given)} holds {len(models)} models ({names}{more}): give the path of one of them",
        )
    return models[0]


def _is_model_name(name: str) -> bool:
    """Projectors and all shards but the first are parts of another model."""
    shard = PART_NAME.search(name)
    return (
        name.lower().endswith(".gguf")
        and not name.lower().startswith("mmproj")
        and (shard is None or int(shard[1]) == 1)
    )


def _check_is_gguf(path: Path) -> None:
    if path.suffix.lower() != ".gguf":
        raise model_path_error("invalid_model_format", f"{shown_path(str(path))} is not a .gguf file")
    shard = PART_NAME.search(path.name)
    if shard is not None and int(shard[1]) != 1:
        raise model_path_error(
            "invalid_model_format",
            f"{shown_path(path.name)} is part {int(shard[1])} of {int(shard[2])} of a model: give the path of part 1",
        )
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError:
        raise _access_denied(str(path)) from None
    if magic != GGUF_MAGIC:
        what = "is empty" if not magic else "has the name of a GGUF model, but is something else"
        raise model_path_error(
            "invalid_model_format", f"{shown_path(str(path))} {what}: it does not begin with 'GGUF'"
        )


def _access_denied(given: str) -> ModelFileError:
    return model_path_error(
        "model_path_access_denied", f"The server has no right to read {shown_path(given)}"
    )
