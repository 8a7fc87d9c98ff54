"""Placeholders in YAML files: names of environment variables that stand for their values. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

STANDARD_NAMES = frozenset(
    {"CHAT_SERVER_HOST", "CHAT_SERVER_PORT", "CHAT_SERVER_API_KEY", "KEYVAULT_URL", "API_KEY_SECRET_NAME"}
)
"""Bare names that are never a value: where the variable is not set, neither is the setting."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_BARE = re.compile(_NAME)
_BRACED = re.compile(rf"\$\{{({_NAME})(?::-([^}}]*))?\}}")

BARE_SECTIONS = frozenset({"server", "azure"})
"""The sections in which a whole value may be a bare name."""


def resolve(values: dict[str, JsonValue], environ: Mapping[str, str]) -> dict[str, JsonValue]:
    """A file's values with its placeholders replaced.

    `${NAME}` and `${NAME:-default}` may stand anywhere in any text. In the sections of `BARE_SECTIONS` a text may be a bare
    name. A key whose whole value is an unset placeholder is left out.
    """
    made = {key: _resolved(value, environ, bare=key in BARE_SECTIONS) for key, value in values.items()}
    return _without_unset(made, values)


def _without_unset(made: dict[str, JsonValue], values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """What was resolved, less the keys that came to nothing; a null that was written stays."""
    return {key: value for key, value in made.items() if value is not None or values[key] is None}


def _resolved(value: JsonValue, environ: Mapping[str, str], *, bare: bool) -> JsonValue:
    match value:
        case dict():
            made = {key: _resolved(item, environ, bare=bare) for key, item in value.items()}
            return _without_unset(made, value)
        case list():
            return [_resolved(item, environ, bare=bare) for item in value]
        case str():
            return _text(value, environ, bare=bare)
        case _:
            return value


def _text(text: str, environ: Mapping[str, str], *, bare: bool) -> str | None:
    if bare and _BARE.fullmatch(text):
        return environ.get(text) or (None if text in STANDARD_NAMES else text)
    whole = _BRACED.fullmatch(text)
    if whole is not None:
        return environ.get(whole[1]) or whole[2] or None
    return _BRACED.sub(lambda found: environ.get(found[1]) or found[2] or "", text)
