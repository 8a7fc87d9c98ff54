"""What all sources of settings share: they are validated, and what is wrong is said in one line.

Owns the words of every configuration error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kolosal.config.errors import ConfigError
from kolosal.config.models import ModelEntry
from kolosal.config.yaml_file import KeyPath
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import LoadingParameters

S = TypeVar("S")

RULE_KEYS = tuple(field.name for field in fields(Rules))
ENTRY_KEYS = (
    "id", "path", "backend", "backend_options", "load_immediately", "load_at_startup", "main_gpu_id", "load_params", *RULE_KEYS
)  # fmt: skip
"""What an entry of `models` may hold."""


def _known_keys(loc: KeyPath) -> Iterable[str]:
    """What may stand beside an unknown key of the configuration."""
    return [field.name for field in fields(LoadingParameters)] if "parameters" in loc else ENTRY_KEYS


def validated(
    validate: Callable[[], S],
    place: Callable[[KeyPath], str],
    known_keys: Callable[[KeyPath], Iterable[str]] = _known_keys,
) -> S:
    """The settings that `validate` makes; `place` says what a field is called in their source, and where it stands; `known_keys`
    what may stand in the place of an unknown one."""
    try:
        return validate()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        # tags of unions look like <this>, and stand in no file
        key = tuple(part for part in first["loc"] if not str(part).startswith("<"))
        raise ConfigError(f"{place(key)}: {_explanation(first, known_keys)}") from exc


def _explanation(error: ErrorDetails, known_keys: Callable[[KeyPath], Iterable[str]]) -> str:
    """What is wrong, in terms of the value that was given."""
    if error["loc"][:2] == ("auth", "api_key"):  # whatever it is, it may be a secret
        return "must be text of 16 to 512 characters"
    if error["loc"][:2] == ("store", "url"):  # it may hold a password
        return "must be sqlite:///PATH, or postgresql://USER:PASSWORD@HOST/DATABASE"
    value = error["input"]
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key{suggestion(str(error['loc'][-1]), known_keys(error['loc']))}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return "is missing"
        case "dataclass_type":
            text = "must be a mapping of keys to values"
        case "union":
            text = f"must be {error['msg']}"
        case "bool_type" | "bool_parsing":
            text = "must be true or false"
        case "value_error":
            text = error["msg"].removeprefix("Value error, ")
        case "union":
            text = f"must be {error['msg']}"
        case "string_pattern_mismatch":
            text = "holds a character that is not allowed here"
        case "string_type" if isinstance(value, int | float):
            return f"must be text, not {value!r}: put it in quotes"
        case _:
            text = re.sub(r"^\w+ should ", "must ", error["msg"])
    return text if isinstance(value, dict | list) else f"{text}, not {repr(value)[:80]}"


def suggestion(given: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """`: did you mean 'x'?`, or all that are known. `aliases` are what else people write, and what is right instead."""
    right = {**(aliases or {}), **{name: name for name in known}}
    if close := get_close_matches(given, right, n=1, cutoff=0.7):
        return f": did you mean '{right[close[0]]}'?"
    return f": known are {', '.join(known)}"


def refuse_duplicates(entries: Iterable[ModelEntry], place: Callable[[int], str]) -> None:
    """Raises ConfigError where two engines of one source have the same id; `place` says where the id at an index stands."""
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        if entry.id in seen:
            raise ConfigError(f"{place(index)}: the id '{entry.id}' is given twice")
        seen.add(entry.id)


def absolute_path(path: str, folder: Path, place: str) -> str:
    """A model's path, seen from a folder. Raises ConfigError where it can be none."""
    if not path:
        return ""  # its backend needs none
    if "://" in path:
        raise ConfigError(f"{place}: must be a file on this machine, not {path[:80]!r}")
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as exc:  # ~someone who does not exist
        raise ConfigError(f"{place}: {exc}") from exc
