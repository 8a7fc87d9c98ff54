"""What of Jinja and of Python a chat template may use.

All that the templates of the field use is here, and what is like it. What is for web pages, makes much of little or takes
long for its size is not.
"""

from __future__ import annotations

from types import GeneratorType
from typing import Final

FREE_FILTERS: Final = frozenset({"attr", "count", "d", "default", "first", "last", "length"})
"""Filters that give what is there already."""

FILTERS: Final = frozenset(
    {
        *(
            "abs",
            "capitalize",
            "dictsort",
            "e",
            "escape",
            "float",
            "format",
            "indent",
            "int",
            "items",
            "join",
            "list",
        ),
        *(
            "lower",
            "map",
            "max",
            "min",
            "reject",
            "rejectattr",
            "replace",
            "reverse",
            "round",
            "safe",
            "select",
        ),
        *("selectattr", "sort", "string", "sum", "title", "tojson", "trim", "unique", "upper"),
    }
)
"""Filters that are asked what they read and make."""

SHALLOW_FILTERS: Final = frozenset(
    {"items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr"}
)
"""Filters that do not look into the items of what they are given."""

COUNTED_FILTERS: Final = frozenset({"map", "reject", "rejectattr", "select", "selectattr", "sum"})
"""Filters that take one item after the other."""

GREEDY_FILTERS: Final = frozenset({"join", "list", "max", "min", "sort", "sum", "unique"})
"""Filters that take all that an iterator gives."""

LIGHT_TESTS: Final = frozenset(
    {
        *(
            "boolean",
            "callable",
            "defined",
            "escaped",
            "false",
            "filter",
            "float",
            "integer",
            "iterable",
            "mapping",
        ),
        *("none", "number", "sameas", "sequence", "string", "test", "true", "undefined"),
    }
)
"""Tests that look at what a value is, not at what is in it."""

METHODS: Final[tuple[tuple[tuple[type, ...], frozenset[str]], ...]] = (
    (
        (str,),
        frozenset(
            {
                *(
                    "capitalize",
                    "casefold",
                    "count",
                    "endswith",
                    "find",
                    "index",
                    "isalnum",
                    "isalpha",
                ),
                *(
                    "isascii",
                    "isdecimal",
                    "isdigit",
                    "islower",
                    "isnumeric",
                    "isspace",
                    "istitle",
                    "isupper",
                    "join",
                ),
                *(
                    "lower",
                    "lstrip",
                    "partition",
                    "removeprefix",
                    "removesuffix",
                    "replace",
                    "rfind",
                    "rindex",
                ),
                *("rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase"),
                *("title", "upper"),
            }
        ),
    ),
    ((dict,), frozenset({"get", "items", "keys", "values"})),
    ((list, tuple), frozenset({"count", "index"})),
    ((int, float, bytes, type, GeneratorType), frozenset()),
)
"""Attributes of Python's own types, by type. `str.format` is the sandbox's."""
