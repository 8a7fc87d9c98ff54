"""JSON that a request holds as a value: written out again, and not deeper than every later reader can follow."""

from __future__ import annotations

import orjson

from kolosal.errors import InvalidRequest

MAX_DEPTH = 100
"""Arrays and objects in one another. A worker's frames may be 200 deep, with what is around the value."""


def json_text(value: object, path: str) -> str:
    """A value as JSON; `path` is where it stands in the request.

    Raises:
        InvalidRequest: it is nested too deeply, or holds an integer of more than 64 bits.
    """
    if _deeper_than(value, MAX_DEPTH):
        raise InvalidRequest(
            f"{path} must be nested at most {MAX_DEPTH} levels deep, but is deeper", param=path
        )
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # the parser has integers of any length, the writer has not
        raise InvalidRequest(
            f"{path} must hold integers of at most 64 bits, but holds a longer one", param=path
        ) from None


def _deeper_than(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_deeper_than(item, levels - 1) for item in value.values())
    if isinstance(value, list | tuple):
        return levels == 0 or any(_deeper_than(item, levels - 1) for item in value)
    return False
