"""Filters on the attributes of files: which files a search looks at. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

AttributeValue: TypeAlias = str | float | bool
Comparison: TypeAlias = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """One attribute against a value, or several with `in` and `nin`."""

    type: Comparison
    key: str
    value: AttributeValue | tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class CombinedFilter:
    """All of some filters, or any of them."""

    type: Literal["and", "or"]
    filters: tuple[Filter, ...]


Filter: TypeAlias = AttributeFilter | CombinedFilter

_ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def matches(given: Filter, attributes: Mapping[str, AttributeValue]) -> bool:
    """Whether a file with these attributes passes. What it has not is equal to nothing, and neither more nor less."""
    if isinstance(given, CombinedFilter):
        each = (matches(part, attributes) for part in given.filters)
        return all(each) if given.type == "and" else any(each)
    has = attributes.get(given.key)
    if given.type in _ORDER:
        comparable = isinstance(has, str) is isinstance(given.value, str)
        return has is not None and comparable and _ORDER[given.type](has, given.value)
    wanted = given.value if isinstance(given.value, tuple) else (given.value,)
    found = has is not None and any(_same(has, value) for value in wanted)
    return found is (given.type in ("eq", "in"))


def _same(one: AttributeValue, other: AttributeValue) -> bool:
    """Equal as JSON is: true is not 1."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)
