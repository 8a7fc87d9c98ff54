"""How much JSON may hold, whatever its length: 16 MiB of `[],[],…` take parsers four seconds, in which nothing else runs.

Parsers hold the interpreter's lock from the first byte to the last, also in a thread. So values are counted before, piece
by piece, and a body of too many is refused without being parsed.
"""

from __future__ import annotations

import re

from kolosal.errors import InvalidRequest

MAX_STRUCTURES = 24_000
"""Keys, arrays and objects of one body, where it holds nothing else. Each costs a parser about a microsecond."""

MAX_VALUES = 1_200_000
"""Commas and strings of one body, which cost a fiftieth of that: a prompt may be an array of a million tokens."""

_NEVER_MANY_BYTES = 16 * 1024
"""Bodies up to this length cannot hold too much, and are not looked at."""

_STRING = rb'(?:[^"\\]{1,8192}|\\.){0,512}+("|\\?\Z)?'
_PIECE = re.compile(rb'([^"]{0,65536})("' + _STRING + rb")?", re.DOTALL)
"""What is outside of strings, and the string after it, or its beginning. Bounded, because a match holds the lock too."""

_REST = re.compile(_STRING, re.DOTALL)

_COST = MAX_VALUES // MAX_STRUCTURES


def check_bulk(body: bytes) -> None:
    """Look at how much a JSON text holds. Whether it is one, the parser says.

    Raises:
        InvalidRequest: it holds too much.
    """
    if len(body) <= _NEVER_MANY_BYTES:
        return
    left = MAX_VALUES
    at = 0
    while at < len(body):
        piece = _PIECE.match(body, at)
        assert piece is not None  # noqa: S101 - all of it is optional
        outside, string, end = piece.groups()
        structures = outside.count(b":") + outside.count(b"[") + outside.count(b"{")
        left -= outside.count(b",") + _COST * structures + (string is not None)
        if left < 0:
            raise InvalidRequest(
                f"Invalid JSON: the body holds too much: at most {MAX_STRUCTURES} keys, arrays and objects,"
                f" or {MAX_VALUES} other values, or some of both, are allowed"
            )
        at = piece.end() if string is None or end is not None else _end_of_string(body, piece.end())


def _end_of_string(body: bytes, at: int) -> int:
    """Where a string ends that `at` is in."""
    while True:
        rest = _REST.match(body, at)
        assert rest is not None  # noqa: S101 - all of it is optional
        at = rest.end()
        if rest[1] is not None:
            return at
