"""Keywords of strings and numbers, and counts: bounds that can be held to, patterns, formats."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from kolosal.chat.json_schema.patterns import enforceable_pattern
from kolosal.chat.json_schema.places import Notes, Schema, SchemaPlace

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
)
"""Those that llguidance enforces."""

_HINTS = frozenset(
    {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "uint", "int", "float", "double", "decimal", "number",
     "integer", "string", "byte", "binary", "password", "textarea", "text", "markdown", "html", "color", "json", "any"}
)  # fmt: skip
"""Formats that do not say which texts are valid."""

_MAX_COUNT = 1_000_000
"""Lengths are held to at most this: no answer is as long."""

_MAX_INTEGER = 9 * 10**18
_MAX_NUMBER = 1e17
_INFINITE = 1e300
"""Larger bounds are none: they are made of the largest double."""

_MAX_PATTERN_CHARS = 8_000
"""Characters of all patterns of one schema."""


class LeafKeywords:
    """Reads the keywords of one schema's strings and numbers."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._n_pattern_chars = 0

    def string(self, given: Schema, found: Schema, place: SchemaPlace) -> None:
        if "pattern" in given:
            pattern = self.pattern(given["pattern"], place / "pattern")
            if pattern:
                found["pattern"] = pattern
        least, most = self.count_range(given, "minLength", "maxLength", place)
        if least:
            found["minLength"] = least
        if most is not None:
            found["maxLength"] = most
        form = given.get("format", "")
        if isinstance(form, str) and form in _FORMATS:
            found["format"] = form
        elif not isinstance(form, str) or (form and form not in _HINTS):
            self._notes.add(place / "format", f"{json.dumps(form)[:60]} is not known")

    def number(self, given: Schema, found: Schema, place: SchemaPlace) -> None:
        types = found.get("type")
        integer = types == "integer" or (
            isinstance(types, list) and "integer" in types and "number" not in types
        )
        bounds: dict[str, float] = {}
        for keyword, exclusive, sign in (
            ("minimum", "exclusiveMinimum", -1),
            ("maximum", "exclusiveMaximum", 1),
        ):
            for name in (keyword, exclusive):
                value = given.get(name)
                if name == exclusive and isinstance(value, bool):  # draft 4
                    if value and keyword in bounds:
                        bounds[exclusive] = bounds.pop(keyword)
                    continue
                bound = self._bound(value, sign, place / name, integer=integer)
                if bound is not None:
                    bounds[name] = bound
        if _is_empty(bounds, integer=integer):
            self._notes.add(place / next(iter(bounds)), "no number is within the bounds")
            bounds = {}
        found.update(bounds)
        step = given.get("multipleOf")
        if isinstance(step, int | float) and not isinstance(step, bool) and 1e-9 <= step <= _MAX_NUMBER:
            found["multipleOf"] = step
        elif step is not None:
            self._notes.add(
                place / "multipleOf", "it must be a number above 0, and not a very small or large one"
            )

    def _bound(self, value: object, sign: int, place: SchemaPlace, *, integer: bool) -> float | None:
        """A bound as it can be enforced: one that is far away is a nearer one. `sign`: 1 for an upper bound."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            self._notes.add(place, "it must be a number")
            return None
        if abs(value) >= _INFINITE and value * sign > 0:
            return None
        most: float = _MAX_INTEGER if integer else _MAX_NUMBER
        if abs(value) <= most:
            return int(value) if integer and float(value).is_integer() else value
        if value * sign > 0:
            return most * sign
        self._notes.add(place, "numbers as large cannot be told apart")
        return None

    def count_range(self, given: Schema, low: str, high: str, place: SchemaPlace) -> tuple[int, int | None]:
        least, most = self.count(given, low, place) or 0, self.count(given, high, place)
        if most is not None and least > most:
            self._notes.add(place / low, f"it is larger than {high}")
            return 0, most
        return least, most

    def count(self, given: Schema, keyword: str, place: SchemaPlace) -> int | None:
        """A length, which may be written as a whole float."""
        value = given.get(keyword)
        if value is None:
            return None
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and value >= 0
            and float(value).is_integer()
        ):
            return min(int(value), _MAX_COUNT)
        self._notes.add(place / keyword, "it must be a whole number of at least 0")
        return None

    def pattern(self, source: object, place: SchemaPlace) -> str | None:
        if not isinstance(source, str):
            self._notes.add(place, "a pattern must be a string")
            return None
        self._n_pattern_chars += len(source)
        if self._n_pattern_chars > _MAX_PATTERN_CHARS:
            self._notes.add(place, "the schema has too many patterns")
            return None
        pattern, exact = enforceable_pattern(source)
        if not exact:
            self._notes.add(place, "parts of it cannot be enforced" if pattern else "it cannot be enforced")
        return pattern


def _is_empty(bounds: Mapping[str, float], *, integer: bool) -> bool:
    low = max((bounds[name] for name in ("minimum", "exclusiveMinimum") if name in bounds), default=-math.inf)
    high = min((bounds[name] for name in ("maximum", "exclusiveMaximum") if name in bounds), default=math.inf)
    if integer and math.isfinite(low) and math.isfinite(high):
        first = math.floor(low) + 1 if bounds.get("exclusiveMinimum") == low else math.ceil(low)
        last = math.ceil(high) - 1 if bounds.get("exclusiveMaximum") == high else math.floor(high)
        return first > last
    touching = low == high and ("exclusiveMinimum" in bounds or "exclusiveMaximum" in bounds)
    return low > high or touching
