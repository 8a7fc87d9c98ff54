"""The headers of a model, which may be one GGUF file or several parts (`gguf-split` of llama.cpp: name-00001-of-00005.gguf).

Owns the checks that the parts are there and belong together. Which folders they may lie in is the caller's rule, and a name
that a client gave is made a path by `kolosal.paths` before it gets here. Blocks on the disk: the event loop calls it in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from kolosal.engines.memory.gguf import GgufHeader, read_header
from kolosal.engines.memory.header_values import check_values
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.errors import ModelFileError

PART_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
"""How the file of a part ends: its number from 1, and how many there are."""

_MAX_PARTS = 1000
"""Files of one model."""

_SHOWN_CHARS = 100
"""How much of a path a message repeats: its end, which tells files apart."""

PartCheck = Callable[[Path], None]
"""Raises a `ModelFileError` where a part must not be read. Called before anything touches it."""


def read_shape(path: Path, check_part: PartCheck | None = None) -> ModelShape:
    """The sizes of a model. `path` is its file, or the first part.

    Raises:
        ModelFileError: a part is missing, is refused by `check_part`, cannot be read, or is no GGUF file that llama.cpp could load.
    """
    return ModelShape.of(read_headers(path, check_part))


def read_headers(path: Path, check_part: PartCheck | None = None) -> tuple[GgufHeader, ...]:
    """The headers of all parts of a model, in order. `path` is the first part.

    Raises:
        ModelFileError: as `read_shape`.
    """
    first = read_header(path)
    check_values(first)
    count = first.metadata.get("split.count", 0)
    if not isinstance(count, int) or not 0 <= count <= _MAX_PARTS:
        raise model_path_error(
            "invalid_model_format", f"The model file {shown_path(path.name)} says that it has {count!r} parts"
        )
    if count <= 1:
        return (first,)
    parts = _parts(path, count)
    for number, part in enumerate(parts, 1):
        if check_part is not None:
            check_part(part)
        if not part.exists():  # what is there but no file is refused when it is opened
            raise model_path_error(
                "model_file_not_found",
                f"Part {number} of {count} is missing: there is no file {shown_path(part.name)}",
            )
    headers = (first, *map(read_header, parts[1:]))
    _check_belong_together(path, headers)
    return headers


def _parts(path: Path, count: int) -> list[Path]:
    """The names of all parts, by that of the first."""
    name = PART_NAME.search(path.name)
    if name is None or int(name[2]) != count:
        raise model_path_error(
            "invalid_model_format",
            f"The model file {shown_path(path.name)} is the first of {count} parts,"
            f" and its name must end in -00001-of-{count:05}.gguf",
        )
    stem = path.name[: name.start()]
    return [path, *(path.with_name(f"{stem}-{n:05}-of-{count:05}.gguf") for n in range(2, count + 1))]


def _check_belong_together(path: Path, headers: Sequence[GgufHeader]) -> None:
    """Each part is the one its name says, and together they hold what the first says."""
    for number, header in enumerate(headers):
        if header.metadata.get("split.no") != number:
            raise model_path_error(
                "invalid_model_format",
                f"Part {number + 1} of {shown_path(path.name)} says that it is another part",
            )
    names = [tensor.name for header in headers for tensor in header.tensors]
    expected = headers[0].metadata.get("split.tensors.count", len(names))
    if expected != len(names) or len(set(names)) < len(names):
        raise model_path_error(
            "invalid_model_format",
            f"The parts of {shown_path(path.name)} hold {len(names)} tensors, and {expected!r} belong to the model",
        )


def model_path_error(code: str, message: str) -> ModelFileError:
    """An error about the field `model_path`."""
    return ModelFileError(message, param="model_path", code=code)


def shown_path(path: str) -> str:
    """A path as messages quote it: shortened from the front, with the backslashes of Windows single, to be copied."""
    text = repr(path if len(path) <= _SHOWN_CHARS else "…" + path[-_SHOWN_CHARS:])
    return text.replace("\\\\", "\\")
