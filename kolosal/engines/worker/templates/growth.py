"""How large what an operator, a method or a filter of a template makes can get, from what it is given.

Pure, and an upper bound: bytes, or comparisons where it is these that grow. What is not here makes a few bytes of a
character at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from kolosal.engines.worker.templates.budget import MAX_CHAR_BYTES, MAX_NUMBER_BITS

ENDLESS: Final = 1 << 62
"""More than anything may be."""

MAX_FIELD_CHARS: Final = 999
"""A width, a precision, an indentation, or a count of columns that a template asks for."""

_MAX_INDENT_CHARS: Final = 16
"""In JSON, for each depth; and of what is put between its values."""

_PIECE: Final = 64 + 8
"""Bytes that a piece of a text takes beside its characters."""

_WORD: Final = _PIECE + MAX_CHAR_BYTES

_LOOK_UP: Final = 64
"""Looking up a name takes as long as reading so many characters."""

_LINE_ENDS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_WIDE_FIELD = re.compile(r"%(?:\((?![^()%]*\))|(?:\([^()%]*\))?[-+ #0.\d]*?(?:\*|\d{4}))")
"""Also a field whose key has brackets or `%`: where that ends, and its width begins, is not looked for."""
_WIDE_SPEC = re.compile(r"\d{4}")


def of_operator(operator: str, left: Any, right: Any) -> int:
    """What `left operator right` makes."""
    if isinstance(left, int) and isinstance(right, int):
        return _of_numbers(operator, left, right)
    if operator == "*":
        text, times = (right, left) if isinstance(left, int) else (left, right)
        return (
            MAX_CHAR_BYTES * 2 * len(text) * max(times, 0) if _is_long(text) and isinstance(times, int) else 0
        )
    if operator == "+":
        return sum(MAX_CHAR_BYTES * 2 * len(side) for side in (left, right) if _is_long(side))
    if operator == "%" and isinstance(left, str):
        return of_fields(left)
    return 0


def of_fields(text: str) -> int:
    """What widths and precisions in a text with `%` fields make."""
    if _WIDE_FIELD.search(text):
        return ENDLESS
    return MAX_CHAR_BYTES * (len(text) + text.count("%") * 2 * MAX_FIELD_CHARS)


def is_wide(spec: str) -> bool:
    """Whether the format of a field, as in `{:>10}`, asks for more than it may."""
    return _WIDE_SPEC.search(spec) is not None


def _of_numbers(operator: str, left: int, right: int) -> int:
    bits: int = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
    return ENDLESS if bits > MAX_NUMBER_BITS else 0


def _is_long(value: object) -> bool:
    return isinstance(value, str | list | tuple)


def _replaced(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> int:
    text = str(text)
    n_chars: int = len(text) + text.count(str(old)) * len(str(new))
    return MAX_CHAR_BYTES * n_chars


def _split(text: Any, sep: Any = None, maxsplit: Any = -1) -> int:
    pieces: int = text.count(sep) if sep else len(text) // 2
    if isinstance(maxsplit, int) and maxsplit >= 0:
        pieces = min(pieces, maxsplit)
    return _PIECE * (pieces + 1) + len(text)


def _split_from_behind(text: Any, sep: Any = None, maxsplit: Any = -1) -> int:
    return max(_split(text, sep, maxsplit), _found_from_behind(text, sep))


def _found_from_behind(text: Any, found: Any = None, *_: Any) -> int:
    """Searching from behind compares each place with each character."""
    return len(text) * len(found) if isinstance(found, str) else 0


def _stripped(text: Any, chars: Any = None) -> int:
    """So does stripping."""
    return len(str(text)) * len(chars) if isinstance(chars, str) else 0


def _n_lines(text: str) -> int:
    return 1 + sum(map(text.count, _LINE_ENDS))


def _lines(text: Any, *_: Any, **__: Any) -> int:
    return _PIECE * _n_lines(text)


def _indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    text = str(text)
    n_chars = len(width) if isinstance(width, str) else int(width)
    return _n_lines(text) * (_PIECE + MAX_CHAR_BYTES * n_chars)


def _joined_by(separator: Any, items: Any = (), *_: Any) -> int:
    return MAX_CHAR_BYTES * len(separator) * len(items) if hasattr(items, "__len__") else 0


def _joined(items: Any, separator: Any = "", attribute: Any = None) -> int:
    return _joined_by(str(separator), items) + _by_path(items, attribute)


def _words(text: Any, *_: Any) -> int:
    return _WORD * len(str(text))


def _list(value: Any) -> int:
    return _WORD * len(value) if hasattr(value, "__len__") else 0


def _counted(_: Any, *arguments: Any, **named: Any) -> int:
    """Numbers that say how wide, or how many."""
    numbers = [number for number in (*arguments, *named.values()) if isinstance(number, int)]
    return ENDLESS if any(abs(number) > MAX_FIELD_CHARS for number in numbers) else 0


def _by_path(items: Any, *arguments: Any, **named: Any) -> int:
    """Paths like `function.name`, of which each part is looked up in each item."""
    paths = [path for path in (*arguments, *named.values()) if isinstance(path, str)]
    n_items = len(items) if hasattr(items, "__len__") else 1
    return _LOOK_UP * n_items * sum(map(len, paths))


def _path(_: Any, path: Any = "", *__: Any, attribute: Any = "", **___: Any) -> int:
    """The same, where the items are counted as they come."""
    longest = max(len(name) for name in (path, attribute, "") if isinstance(name, str))
    return ENDLESS if longest > MAX_FIELD_CHARS else 0


def _json(value: Any, indent: Any = None, _: Any = False, separators: Any = None, **__: Any) -> int:
    lengths = [len(text) for text in separators or () if isinstance(text, str)]
    lengths.append(len(indent) if isinstance(indent, str) else indent or 0)
    return ENDLESS if max(lengths) > _MAX_INDENT_CHARS else _quoted(value)


def _quoted(value: Any) -> int:
    """Six signs stand for a character, and one wide character makes all of them wide."""
    is_wide = isinstance(value, str) and not value.isascii()
    return 6 * MAX_CHAR_BYTES * len(value) if is_wide else 0


def _formatted(text: Any, *_: Any, **__: Any) -> int:
    return of_fields(str(text))


METHODS: Final[dict[str, Callable[..., int]]] = {
    "join": _joined_by,
    "lstrip": _stripped,
    "replace": _replaced,
    "rfind": _found_from_behind,
    "rindex": _found_from_behind,
    "rpartition": _found_from_behind,
    "rsplit": _split_from_behind,
    "rstrip": _stripped,
    "split": _split,
    "splitlines": _lines,
    "strip": _stripped,
}
"""For methods of texts, by name. They are given the text too."""

FILTERS: Final[dict[str, Callable[..., int]]] = {
    "e": _quoted,
    "escape": _quoted,
    "format": _formatted,
    "indent": _indented,
    "join": _joined,
    "list": _list,
    "map": _path,
    "max": _by_path,
    "min": _by_path,
    "reject": _path,
    "rejectattr": _path,
    "replace": _replaced,
    "round": _counted,
    "select": _path,
    "selectattr": _path,
    "sort": _by_path,
    "sum": _path,
    "title": _words,
    "tojson": _json,
    "trim": _stripped,
    "unique": _by_path,
}
"""For filters, by name. They are given the filtered value too."""
