"""Gemma's notation for arguments: like JSON, with keys as they are and strings between marks of their own.

`{city:<escape>Paris<escape>,days:[1,2]}` is `{"city": "Paris", "days": [1, 2]}`. Read as it comes, shown as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from kolosal.chat.json_scanner import MAX_DEPTH, SCALAR
from kolosal.chat.text_source import Reading, TextSource

_KEY = re.compile(r"[^\s:,{}\[\]<]+")
_SCALAR_CHARS = re.compile(r"[-+.0-9A-Za-z]+")
_MAX_CHARS = 4096
"""Characters of a key without marks, or of a number."""

_CLOSES = {"{": "}", "[": "]"}


def read_notation(source: TextSource, quote: str, show: Callable[[str], None]) -> Reading[bool]:
    """Show an object as JSON while it comes; False where it is broken, or the text ends before."""
    open_ones: list[str] = []
    while True:
        if not (yield from _value(source, quote, show, open_ones)):
            return False
        if not (yield from _after_value(source, quote, show, open_ones)):
            return False
        if not open_ones:
            return True


def _value(
    source: TextSource, quote: str, show: Callable[[str], None], open_ones: list[str]
) -> Reading[bool]:
    """A string or scalar, or an opening bracket with all that leads to the first value in it."""
    yield from source.blanks()
    if (yield from source.starts_with(quote)):
        return (yield from source.string((quote,), show))
    char = yield from source.peek()
    if char in _CLOSES and char:
        if len(open_ones) >= MAX_DEPTH:
            return False
        open_ones.append(char)
        show(source.take(1))
        yield from source.blanks()
        if (yield from source.peek()) == _CLOSES[char]:
            return True
        if char == "{" and not (yield from _key(source, quote, show)):
            return False
        return (yield from _value(source, quote, show, open_ones))
    scalar = yield from source.while_in(_SCALAR_CHARS, _MAX_CHARS)
    show(scalar)
    return SCALAR.match(scalar) is not None


def _after_value(
    source: TextSource, quote: str, show: Callable[[str], None], open_ones: list[str]
) -> Reading[bool]:
    """Closing brackets, and what leads to the next value."""
    while open_ones:
        yield from source.blanks()
        char = yield from source.peek()
        if char == ",":
            source.take(1)
            show(", ")
            yield from source.blanks()
            return open_ones[-1] == "[" or (yield from _key(source, quote, show))
        if char != _CLOSES[open_ones[-1]]:
            return False
        show(source.take(1))
        open_ones.pop()
    return True


def _key(source: TextSource, quote: str, show: Callable[[str], None]) -> Reading[bool]:
    if (yield from source.starts_with(quote)):
        if not (yield from source.string((quote,), show)):
            return False
    else:
        key = yield from source.while_in(_KEY, _MAX_CHARS)
        if not key:
            return False
        show(json.dumps(key, ensure_ascii=False))
    yield from source.blanks()
    if (yield from source.peek()) != ":":
        return False
    source.take(1)
    show(": ")
    return True
