"""Request bodies: from bytes on the wire to UTF-8 JSON whose root is an object.

Owns the charset rules, which are there for Windows PowerShell 5.1, and the words for what is no JSON. Knows no fields.
"""

from __future__ import annotations

import codecs
from email.message import Message

import orjson
from starlette.requests import Request

from kolosal.errors import InvalidRequest, UnsupportedMediaType
from kolosal.http.bulk import check_bulk

_BOM = codecs.BOM_UTF8

_CHARSETS = frozenset(
    {"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be"}
)
"""Charsets a body may declare, by Python's names. A list, because Python has codecs that take quadratic time."""


async def read_json(request: Request) -> bytes:
    """The body of a request as UTF-8, not yet parsed.

    Raises:
        UnsupportedMediaType: it is compressed, or in a charset that is not read here.
        InvalidRequest: its bytes are not in its charset.
    """
    refuse_compressed(request)
    content_type = request.headers.get("content-type", "")
    return to_utf8(await request.body(), content_type, request.headers.get("user-agent", ""))


def refuse_compressed(request: Request) -> None:
    """A few KiB of gzip can hold gigabytes.

    Raises:
        UnsupportedMediaType: the body is compressed.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(
            "A compressed request body is not accepted: send it without Content-Encoding"
        )


def to_utf8(body: bytes, content_type: str, user_agent: str) -> bytes:
    """The body re-encoded as UTF-8, without a byte order mark.

    A declared charset is honoured. Windows PowerShell 5.1 sends ISO-8859-1 without saying so unless its caller sets a
    charset, so from it, and only from it, bytes that are not UTF-8 are read as that.
    """
    charset = _declared_charset(content_type)
    try:
        text = body.decode(charset or "utf-8")
    except UnicodeDecodeError:
        if charset is not None or "WindowsPowerShell/" not in user_agent:
            raise InvalidRequest(f"Invalid JSON: the body is not valid {charset or 'utf-8'} text") from None
        text = body.decode("iso-8859-1")
    else:
        if charset in (None, "utf-8"):
            return body.removeprefix(_BOM)
    return text.encode().removeprefix(_BOM)


def parse_object(body: bytes) -> dict[str, object]:
    """The JSON object in a body.

    Raises:
        InvalidRequest: it is no JSON, holds too much, or its root is something else.
    """
    check_bulk(body)
    if not body.strip():
        raise InvalidRequest("Invalid JSON: the body is empty, a JSON object is required")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"Invalid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"Invalid JSON: the body must be an object, not {kind_of(value)}")
    return value


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "an array"
        case _:
            return "an object"


def _declared_charset(content_type: str) -> str | None:
    header = Message()
    header["content-type"] = content_type.replace("\r", " ").replace("\n", " ")
    declared = header.get_content_charset()
    if declared is None:
        return None
    try:
        name = codecs.lookup(declared).name
    except (LookupError, ValueError):
        name = None
    if name not in _CHARSETS:
        raise UnsupportedMediaType(f"The charset {declared[:40]!r} is not accepted: send the body as utf-8")
    return name
