"""The older server's configuration: `INFERENCE_*` variables, and the file `.env` in the current folder that may hold them.

One variable names the model, two how it is loaded. What each means to this daemon is said here; a variable of the process
wins over the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from kolosal.config.errors import ConfigError
from kolosal.config.models import ModelEntry
from kolosal.config.sources import SettingsSource
from kolosal.config.yaml_file import exists
from kolosal.engines.parameters import CacheType, EngineId, FlashAttention
from kolosal.files.regular import FileTooLong, NotRegular, read_regular

MODEL_ID = "INFERENCE_MODEL_ID"
ATTENTION = "INFERENCE_ATTN_IMPLEMENTATION"
DTYPE = "INFERENCE_BNB_COMPUTE_DTYPE"
_NAMES = (MODEL_ID, ATTENTION, DTYPE)
"""Others of that prefix are other programs'."""

MAX_DOTENV_BYTES = 64 * 1024
"""Bytes of a `.env` file; bounds the memory that a wrong file can cost."""

LOG_FILE = "inference_server.log"
"""Where such a configuration logs to, unless told otherwise: the older server's file, in the current folder."""

_ATTENTION = {
    "sdpa": FlashAttention.AUTO,
    "flash_attention_2": FlashAttention.ON,
    "eager": FlashAttention.OFF,
}
_DTYPES: dict[str, CacheType] = {"float16": "f16", "bfloat16": "bf16"}

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_ENGINE_ID: TypeAdapter[str] = TypeAdapter(EngineId)

T = TypeVar("T")


def inference_variables(environ: Mapping[str, str], folder: Path) -> dict[str, tuple[str, str]]:
    """Those of the three that are set, each with its value and where that stands. An empty one counts as not set."""
    found = _dotenv(folder / ".env")
    found |= {name: (environ[name], name) for name in _NAMES if environ.get(name)}
    return {name: (value, place) for name, (value, place) in found.items() if value}


def from_inference(
    variables: Mapping[str, tuple[str, str]], entries: Mapping[str, ModelEntry], folder: Path
) -> SettingsSource:
    """What the variables set. `entries` are the engines that a file has named so far."""
    attention = _choice(variables, ATTENTION, _ATTENTION)
    dtype = _choice(variables, DTYPE, _DTYPES)
    if not variables:
        return SettingsSource({})
    values: dict[str, object] = {"logging.file": LOG_FILE}
    origins = {"logging.file": next(place for _, place in variables.values())}
    if MODEL_ID not in variables:
        return SettingsSource(values, origins=origins)
    model, place = variables[MODEL_ID]
    entry = _entry(model, _called(MODEL_ID, place), entries, folder)
    values["server.default_engine"] = model if entry is None else entry.id
    origins["server.default_engine"] = place
    if entry is None:
        return SettingsSource(values, origins=origins)
    parameters = entry.parameters
    if attention is not None:
        parameters = replace(parameters, flash_attn=attention)
    if dtype is not None:
        parameters = replace(parameters, cache_type_k=dtype, cache_type_v=dtype)
    origins[f"models[{entry.id}]"] = place
    return SettingsSource(values, (replace(entry, parameters=parameters),), origins)


def _choice(variables: Mapping[str, tuple[str, str]], name: str, known: Mapping[str, T]) -> T | None:
    if name not in variables:
        return None
    value, place = variables[name]
    if value not in known:
        allowed = ", ".join(known)
        raise ConfigError(f"{_called(name, place)}: must be one of {allowed}, not {value[:80]!r}")
    return known[value]


def _entry(model: str, said: str, entries: Mapping[str, ModelEntry], folder: Path) -> ModelEntry | None:
    """The engine that a model's name means: one of the file, a new one for a path, or None for one that is yet to be added."""
    if model in entries:
        return entries[model]
    path = folder / Path(model)
    is_path = model.lower().endswith(".gguf") or "/" in model or "\\" in model or exists(path)
    try:
        engine_id = _ENGINE_ID.validate_python(path.stem if is_path else model)
    except ValidationError:
        raise ConfigError(
            f"{said}: must be the path of a model or the id of an engine, not {model[:80]!r}"
        ) from None
    return ModelEntry(id=engine_id, path=str(path)) if is_path else None


def _dotenv(path: Path) -> dict[str, tuple[str, str]]:
    """Our variables in a `.env` file, with the line each stands on. Others are other programs'."""
    try:
        content = read_regular(path, MAX_DOTENV_BYTES)
    except (FileNotFoundError, NotRegular):
        return {}
    except FileTooLong:
        raise ConfigError(
            f"{path}: longer than {MAX_DOTENV_BYTES} bytes, so it is no file of variables"
        ) from None
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is not None and match[1] in _NAMES:
            found[match[1]] = (_unquoted(match[2]), f"{path}:{number}")
    return found


def _unquoted(value: str) -> str:
    """A value without its quotes, or without the comment after it."""
    quoted = re.fullmatch(r"""(['"])(.*?)\1\s*(?:#.*)?""", value)
    return quoted[2] if quoted is not None else re.sub(r"(?:^|\s+)#.*", "", value)


def _called(name: str, place: str) -> str:
    """A variable as messages call it: with the line of the file, or as one of the environment."""
    return f"{name} (environment)" if place == name else f"{place}: {name}"
