"""What all sources of settings share: they are validated, and what is wrong is said in one line.

Owns the words of every configuration error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kolosal.config.errors import ConfigError
from kolosal.config.models import ModelEntry
from kolosal.config.settings import Settings
from kolosal.config.yaml_file import KeyPath
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import LoadingParameters

RULE_KEYS = tuple(field.name for field in fields(Rules))
ENTRY_KEYS = ("id", "path", "load_immediately", "load_at_startup", "main_gpu_id", "load_params", *RULE_KEYS)
"""What an entry of `models` may hold."""


def validated(validate: Callable[[], Settings], place: Callable[[KeyPath], str]) -> Settings:
    """The settings that `validate` makes; `place` says what a field is called in their source, and where it stands."""
    try:
        return validate()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        raise ConfigError(f"{place(first['loc'])}: {_explanation(first)}") from exc


def _explanation(error: ErrorDetails) -> str:
    """What is wrong, in terms of the value that was given."""
    if error["loc"][:2] == ("auth", "api_key"):  # whatever it is, it may be a secret
        return "must be text of 16 to 512 characters"
    value = error["input"]
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            known = (
                [field.name for field in fields(LoadingParameters)]
                if "parameters" in error["loc"]
                else ENTRY_KEYS
            )
            return f"unknown key{suggestion(str(error['loc'][-1]), known)}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            return "is missing"
        case "dataclass_type":
            text = "must be a mapping of keys to values"
        case "bool_type" | "bool_parsing":
            text = "must be true or false"
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
    if "://" in path:
        raise ConfigError(f"{place}: must be a file on this machine, not {path[:80]!r}")
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as exc:  # ~someone who does not exist
        raise ConfigError(f"{place}: {exc}") from exc
