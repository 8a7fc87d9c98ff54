"""Model paths: the only place that turns a name given by a client or a file into a path of a model.

Owns the checks of `model_path`: it is in a folder that models may come from, exists, is a regular file (never a device or
a pipe), ends in `.gguf`, begins like a GGUF file and has a header that makes sense, in all its parts. Blocks on the disk, so
the event loop calls it in a thread.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path, PureWindowsPath
from typing import Protocol, TypeAlias

from kolosal.engines.memory.gguf import GgufHeader, read_header
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.errors import ModelFileError

GGUF_MAGIC = b"GGUF"
"""The first four bytes of every GGUF file."""

_SHOWN_CHARS = 100
"""How much of a path a message repeats: its end, which tells files apart."""

_SHOWN_FILES = 8
"""How many files of an ambiguous directory a message names."""

_MAX_PARTS = 1000
"""Files of one model."""

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


class Anywhere(Enum):
    """That models may come from any folder."""

    ON_THIS_MACHINE = auto()
    """For requests, where no folders are set."""
    AT_ALL = auto()
    """For what the operator wrote: also shares of other machines."""


Roots: TypeAlias = tuple[Path, ...] | Anywhere
"""Folders that models may come from. An empty tuple: none."""


class _Entry(Protocol):
    """A model of the configuration."""

    @property
    def path(self) -> str: ...
    @property
    def parameters(self) -> LoadingParameters: ...


@dataclass(frozen=True, slots=True)
class ModelRoots:
    """Where models that requests add may come from."""

    given: tuple[Path, ...]
    """The setting `engines.model_roots`."""
    configured: tuple[Path, ...]
    """The folders of the models of the configuration."""

    @classmethod
    def of(cls, given: Iterable[str], models: Iterable[_Entry]) -> ModelRoots:
        """As the settings say. A model's folder is the one given, or the one its file is in."""
        files = [
            Path(path) for each in models for path in (each.path, each.parameters.draft_model_path) if path
        ]
        folders = (file.parent if file.suffix.lower() == ".gguf" else file for file in files)
        return cls(
            tuple(_absolute(Path(root).expanduser()) for root in given),
            tuple(dict.fromkeys(map(_absolute, folders))),
        )

    def now(self, keys_needed: bool) -> Roots:
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
    path = model_file(model_path, roots)
    read_shape(path, roots)
    if parameters.draft_model_path is not None:
        try:
            draft = model_file(parameters.draft_model_path, roots)
            read_shape(draft, roots)
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
        raise _error(
            "model_path_not_found", f"model_path is {_shown(model_path)}, which no file can be called"
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
        raise _error("invalid_model_path_type", f"{_shown(model_path)} is neither a file nor a directory")
    _check_is_gguf(path)
    return path


def read_shape(path: Path, roots: Roots = Anywhere.AT_ALL) -> ModelShape:
    """The sizes of a model. `path` is its file, or the first part; `roots` is where the other parts must lie.

    Raises:
        ModelFileError: a part is missing, lies elsewhere, cannot be read, or is no GGUF file that llama.cpp could load.
    """
    return ModelShape.of(read_headers(path, roots))


def read_headers(path: Path, roots: Roots = Anywhere.AT_ALL) -> tuple[GgufHeader, ...]:
    """The headers of all parts of a model. `path` is the first part.

    Raises:
        ModelFileError: as `read_shape`.
    """
    first = read_header(path)
    count = first.metadata.get("split.count", 0)
    if not isinstance(count, int) or not 0 <= count <= _MAX_PARTS:
        raise _error(
            "invalid_model_format", f"The model file {_shown(path.name)} says that it has {count!r} parts"
        )
    others = [read_header(part) for part in _parts(path, count, roots)[1:]]
    headers = (first, *others)
    if count > 1:
        _check_parts(path, headers)
    return headers


def _parts(path: Path, count: int, roots: Roots) -> list[Path]:
    """The files of a split model, all of which are there."""
    if count <= 1:
        return [path]
    shard = _SHARD.search(path.name)
    if shard is None or int(shard[2]) != count:
        raise _error(
            "invalid_model_format",
            f"The model file {_shown(path.name)} is the first of {count} parts,"
            f" and its name must end in -00001-of-{count:05}.gguf",
        )
    stem = path.name[: shard.start()]
    parts = [path, *(path.with_name(f"{stem}-{n:05}-of-{count:05}.gguf") for n in range(2, count + 1))]
    for number, part in enumerate(parts, 1):
        _confine(part, roots)
        if not part.is_file():
            raise _error(
                "model_file_not_found",
                f"Part {number} of {count} is missing: there is no file {_shown(part.name)}",
            )
    return parts


def _check_parts(path: Path, headers: tuple[GgufHeader, ...]) -> None:
    """Each part is the one its name says, and together they hold what the first says."""
    for number, header in enumerate(headers):
        if header.metadata.get("split.no") != number:
            raise _error(
                "invalid_model_format",
                f"Part {number + 1} of {_shown(path.name)} says that it is another part",
            )
    names = [tensor.name for header in headers for tensor in header.tensors]
    expected = headers[0].metadata.get("split.tensors.count", len(names))
    if expected != len(names) or len(set(names)) < len(names):
        raise _error(
            "invalid_model_format",
            f"The parts of {_shown(path.name)} hold {len(names)} tensors, and {expected!r} belong to the model",
        )


def is_network_path(path: str) -> bool:
    r"""Whether Windows takes it for `\\host\share`, opening which tells that host who we are, or for a device."""
    return PureWindowsPath(path).drive.startswith("\\\\")


def _confine(path: Path, roots: Roots) -> None:
    """Refuse what lies outside, in the same words whether it exists or not. Nothing outside is touched.

    Raises:
        ModelFileError: it is outside, or a link in it leads outside.
    """
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
    return _error(
        "model_path_access_denied",
        "model_path is not in a folder that models may be loaded from: the setting engines.model_roots names these",
    )


def _mode(path: Path, given: str) -> int:
    try:
        return path.stat().st_mode
    except PermissionError:
        raise _access_denied(given) from None
    except (OSError, ValueError):  # missing, too long, a loop of links, or not a path on this system
        raise _error(
            "model_path_not_found",
            f"{_shown(given)} does not exist on the machine the server runs on"
            " (a relative path starts at the server's working directory)",
        ) from None


def _only_model_in(directory: Path, given: str) -> Path:
    try:
        models = sorted(path for path in directory.iterdir() if _is_model_name(path.name) and path.is_file())
    except OSError:
        raise _access_denied(given) from None
    if not models:
        raise _error("model_file_not_found", f"The directory {_shown(given)} holds no .gguf model")
    if len(models) > 1:
        names = ", ".join(_shown(path.name) for path in models[:_SHOWN_FILES])
        more = f" and {len(models) - _SHOWN_FILES} more" if len(models) > _SHOWN_FILES else ""
        raise _error(
            "model_file_ambiguous",
            f"The directory {_shown(given)} holds {len(models)} models ({names}{more}): give the path of one of them",
        )
    return models[0]


def _is_model_name(name: str) -> bool:
    """Projectors and all shards but the first are parts of another model."""
    shard = _SHARD.search(name)
    return (
        name.lower().endswith(".gguf")
        and not name.lower().startswith("mmproj")
        and (shard is None or int(shard[1]) == 1)
    )


def _check_is_gguf(path: Path) -> None:
    if path.suffix.lower() != ".gguf":
        raise _error("invalid_model_format", f"{_shown(str(path))} is not a .gguf file")
    shard = _SHARD.search(path.name)
    if shard is not None and int(shard[1]) != 1:
        raise _error(
            "invalid_model_format",
            f"{_shown(path.name)} is part {int(shard[1])} of {int(shard[2])} of a model: give the path of part 1",
        )
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError:
        raise _access_denied(str(path)) from None
    if magic != GGUF_MAGIC:
        what = "is empty" if not magic else "has the name of a GGUF model, but is something else"
        raise _error("invalid_model_format", f"{_shown(str(path))} {what}: it does not begin with 'GGUF'")


def _access_denied(given: str) -> ModelFileError:
    return _error("model_path_access_denied", f"The server has no right to read {_shown(given)}")


def _error(code: str, message: str) -> ModelFileError:
    return ModelFileError(message, param="model_path", code=code)


def _shown(path: str) -> str:
    text = repr(path if len(path) <= _SHOWN_CHARS else "…" + path[-_SHOWN_CHARS:])
    return text.replace("\\\\", "\\")  # so that a path of Windows can be copied
