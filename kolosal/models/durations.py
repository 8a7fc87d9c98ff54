"""Durations as Ollama takes them: seconds, or text as Go writes it (https://pkg.go.dev/time#ParseDuration). Pure."""

from __future__ import annotations

import math
import re
from typing import Annotated, TypeAlias, cast

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_KEEP_ALIVE_S = 100 * 365 * 86_400.0
"""Longer than this is as good as for ever: seconds of a hundred years."""

MAX_DURATION_CHARS = 64
"""Characters of a duration that is written out."""

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"([+-]?)((?:{_PART.pattern})+)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)


def duration_seconds(given: str | float) -> float | None:
    """Seconds to stay in memory: 0 is not at all, -1 for ever; None where the text is no duration."""
    seconds = _seconds(given) if isinstance(given, str) else given
    if seconds is None:
        return None
    return -1.0 if seconds < 0 else min(seconds, MAX_KEEP_ALIVE_S)


def _seconds(text: str) -> float | None:
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    whole = _DURATION.fullmatch(text)
    if whole is None:
        return None
    total = math.fsum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(whole[2]))
    return -total if whole[1] == "-" else total


def _checked(given: object) -> str | float:
    is_number = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    is_text = isinstance(given, str) and len(given) <= MAX_DURATION_CHARS
    if not (is_number or is_text) or duration_seconds(cast("str | float", given)) is None:
        raise PydanticCustomError("union", 'a number of seconds or a duration such as "5m" or "1h30m"')
    return float(given) if isinstance(given, int) else cast("str | float", given)


Duration: TypeAlias = Annotated[
    str | float,
    PlainValidator(_checked),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": MAX_DURATION_CHARS}, {"type": "number"}]}),
]
"""Seconds, or a duration: `"5m"`, `"1h30m"`, `"-1m"`."""
