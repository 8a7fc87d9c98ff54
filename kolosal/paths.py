"""Model paths: the only place that turns a name given by a client or a file into a path of a model.

Owns the checks of `model_path`: it is in a folder that models may come from, exists, is a regular file (never a device or
a pipe), ends in `.gguf` or is a blob of Ollama's store, begins like a GGUF file and has a header that makes sense, in all its parts. All of it blocks on
the disk but `checked_config`, which is for the event loop.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import TypeAlias

from kolosal.backends.checks import backend_config
from kolosal.config.models import ModelEntry
from kolosal.engines.memory.gguf import GGUF_MAGIC
from kolosal.engines.memory.loadable import check_loadable
from kolosal.engines.memory.model_files import PART_NAME, model_path_error, read_shape, shown_path
from kolosal.engines.parameters import (
    LLAMACPP,
    BackendOptions,
    EngineConfig,
    LoadingParameters,
    other_than_default,
)
from kolosal.errors import InvalidRequest, ModelFileError
from kolosal.files.deadline import NoAnswer
from kolosal.files.in_thread import in_thread
from kolosal.files.regular import NotRegular, open_regular
from kolosal.sampling import MAX_TOKENS_LIMIT

_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
"""What files are called in Ollama's store."""

_MAX_NAME_CHARS = 1000
"""Of a name that another machine gives."""
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
    """The folders of the models of the configuration, and those of the library."""

    @classmethod
    def of(
        cls, given: Iterable[str], models: Iterable[ModelEntry], library: Iterable[Path] = ()
    ) -> ModelRoots:
        """As the settings say, with the folders of the library. A model's folder is the one given, or the one its file is in."""
        files = [
            Path(path) for each in models for path in (each.path, each.parameters.draft_model_path) if path
        ]
        folders = [file.parent if _may_be_model(file) else file for file in files]
        return cls(
            tuple(_absolute(Path(root).expanduser()) for root in given),
            tuple(dict.fromkeys(map(_absolute, (*folders, *library)))),
        )

    def allowed(self, keys_needed: bool) -> Roots:
        """The folders that count: without keys and setting, all do; with keys and no setting, those of known models."""
        if self.given:
            return self.given
        return self.configured if keys_needed else Anywhere.ON_THIS_MACHINE


def confined(roots: Roots, trusted: Container[str] = ()) -> Callable[[str], Callable[[Path], None]]:
    """For a model's path, what refuses its file and its further parts where they do not lie in these folders.

    Links are followed anew with each call. Of `trusted` paths, which the operator wrote down, anything may be read.
    """

    def check_of(model_path: str) -> Callable[[Path], None]:
        allowed = Anywhere.AT_ALL if model_path in trusted else roots
        return partial(_confine, roots=allowed)

    return check_of


def engine_config(
    engine_id: str,
    model_path: str,
    parameters: LoadingParameters,
    *,
    roots: Roots,
    backend: str = LLAMACPP,
    options: BackendOptions | None = None,
) -> EngineConfig:
    """An engine whose files are there, lie where they may, and have headers that can be read.

    No worker is started for a damaged file. What lies behind `model_path` is for its backend to say; `options` are the backend's.

    Raises:
        InvalidRequest: there is no such backend, or it takes no such parameter or option.
        ModelFileError: a path names no model that may be loaded; `param` is the field it came from.
        LoadFailed: the model cannot be loaded with these parameters.
    """
    if backend != LLAMACPP:
        locate = partial(_existing, roots=roots)
        return backend_config(engine_id, model_path, parameters, backend, options or {}, locate)
    if options:
        raise InvalidRequest(
            "backend_options are for other backends than llama.cpp: its loading parameters stand beside them",
            param="backend_options",
        )
    check_part = partial(_confine, roots=roots)
    path = model_file(model_path, roots)
    shape = read_shape(path, check_part)
    draft_shape = None
    if parameters.n_ctx == 0:
        parameters = _with_own_context(parameters, shape.n_ctx_train)
    if parameters.draft_model_path is not None:
        try:
            draft = model_file(parameters.draft_model_path, roots)
            draft_shape = read_shape(draft, check_part)
        except ModelFileError as exc:
            exc.param = "draft_model_path"
            raise
        parameters = replace(parameters, draft_model_path=str(draft))
    check_loadable(shape, parameters, draft_shape)
    return EngineConfig(engine_id, str(path), parameters)


async def checked_config(
    engine_id: str,
    model_path: str,
    parameters: LoadingParameters,
    *,
    roots: Roots,
    backend: str = LLAMACPP,
    options: BackendOptions | None = None,
) -> EngineConfig:
    """As `engine_config`, for the event loop.

    Raises:
        ModelFileError: also where the disk is silent.
    """
    work = partial(engine_config, roots=roots, backend=backend, options=options)
    try:
        return await in_thread(work, engine_id, model_path, parameters)
    except NoAnswer as exc:
        raise model_path_error(
            "model_path_access_denied", f"{shown_path(model_path)} cannot be read: {exc.strerror}"
        ) from None


async def config_of_entry(entry: ModelEntry) -> EngineConfig:
    """The engine of an entry of the configuration, whose model may be anywhere. Raises as `checked_config`."""
    config = await checked_config(
        entry.id,
        entry.path,
        entry.parameters,
        roots=Anywhere.AT_ALL,
        backend=entry.backend,
        options=entry.backend_options,
    )
    given = other_than_default(entry.parameters)
    return replace(
        config, given=given, placement=entry.placement, num_gpus=entry.num_gpus, strategy=entry.strategy
    )


def _with_own_context(parameters: LoadingParameters, n_ctx_train: int) -> LoadingParameters:
    """The parameters with the window that a model was trained for."""
    if not n_ctx_train:
        raise ModelFileError(
            "n_ctx must be at least 1, not 0: the model's file does not say its own", param="n_ctx"
        )
    try:
        return replace(parameters, n_ctx=min(n_ctx_train, MAX_TOKENS_LIMIT))
    except ValueError as exc:
        raise ModelFileError(str(exc), param="kv_pool_tokens") from None


def model_file(model_path: str, roots: Roots = Anywhere.ON_THIS_MACHINE) -> Path:
    """The absolute path of the one model that `model_path` names: a `.gguf` file, a blob of Ollama's, or a directory that holds one.

    A relative path starts at the daemon's working directory. Links are followed but kept in the result, because the
    target of a link in a download cache has no suffix.

    Raises:
        ModelFileError: it names no such model; the code says why.
    """
    path = _existing(model_path, roots)
    if path.is_dir():
        path = _only_model_in(path, model_path)
        _confine(path, roots)
        _check_is_text(path)
    _check_is_gguf(path)
    return path


def _existing(model_path: str, roots: Roots) -> Path:
    """The absolute path of a file or a directory that a model may be in.

    Raises:
        ModelFileError: there is none, or it lies elsewhere.
    """
    if not model_path or "\0" in model_path:
        raise model_path_error(
            "model_path_not_found", f"model_path is {shown_path(model_path)}, which no file can be called"
        )
    if roots is Anywhere.ON_THIS_MACHINE and os.name == "nt" and is_network_path(model_path):
        raise _outside()
    path = _expanded(Path(model_path)).absolute()
    _confine(path, roots)
    mode = _mode(path, model_path)
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise model_path_error(
            "invalid_model_path_type", f"{shown_path(model_path)} is neither a file nor a directory"
        )
    _check_is_text(path)
    return path


def path_below(folder: Path, name: str) -> Path:
    """Where a file goes whose name another machine gave, with `/` between folders: always below this folder.

    Raises:
        InvalidRequest: the name is none that every system takes for a file below a folder.
    """
    parts = name.split("/")
    if len(name) > _MAX_NAME_CHARS or not all(map(_is_plain_part, parts)):
        raise InvalidRequest(f"{name[:100]!r} is no name for a file here", param="source")
    return folder.joinpath(*parts)


def _is_plain_part(part: str) -> bool:
    return (
        0 < len(part) <= 200
        and part.isprintable()
        and part.strip(". ") != ""
        and not part.endswith((".", " "))
        and not any(char in part for char in '\\/:*?"<>|')
        and not PureWindowsPath(part).is_reserved()
    )


def _expanded(path: Path) -> Path:
    """`~` is the home of whom the daemon runs as; of an unknown user's it stays what it is, a name."""
    try:
        return path.expanduser()
    except RuntimeError:
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


def _may_be_model(path: Path) -> bool:
    return path.suffix.lower() == ".gguf" or _BLOB.fullmatch(path.name) is not None


def _check_is_gguf(path: Path) -> None:
    if not _may_be_model(path):
        raise model_path_error("invalid_model_format", f"{shown_path(str(path))} is not a .gguf file")
    shard = PART_NAME.search(path.name)
    if shard is not None and int(shard[1]) != 1:
        raise model_path_error(
            "invalid_model_format",
            f"{shown_path(path.name)} is part {int(shard[1])} of {int(shard[2])} of a model: give the path of part 1",
        )
    try:
        with open_regular(path) as file:
            magic = file.read(len(GGUF_MAGIC))
    except NotRegular as exc:
        raise _no_file(str(path), exc) from None
    except OSError:
        raise _access_denied(str(path)) from None
    if magic != GGUF_MAGIC:
        what = "is empty" if not magic else "has the name of a GGUF model, but is something else"
        raise model_path_error(
            "invalid_model_format", f"{shown_path(str(path))} {what}: it does not begin with 'GGUF'"
        )


def _check_is_text(path: Path) -> None:
    """Refuse a name that is no UTF-8: it could neither be shown to clients nor stored, and two could look the same."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise model_path_error(
            "invalid_model_path_type",
            f"The path {shown_path(str(path))} is not in UTF-8: rename what in it is not",
        ) from None


def _no_file(path: str, error: NotRegular) -> ModelFileError:
    return model_path_error("invalid_model_path_type", f"{shown_path(path)} is {error.strerror}")


def _access_denied(given: str) -> ModelFileError:
    return model_path_error(
        "model_path_access_denied", f"The server has no right to read {shown_path(given)}"
    )
