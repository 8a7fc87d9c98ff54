"""What an error looks like in the conversation dialect: `{"detail": …}`, a list where a field is at fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pydantic import JsonValue
from starlette.responses import Response
from typing_extensions import TypedDict

from kolosal.errors import (
    AuthenticationFailed,
    ErrorFacts,
    Forbidden,
    InvalidRequest,
    KeyMissing,
    KolosalError,
    LoadFailed,
    error_row,
)
from kolosal.http.responses import JsonResponse, retry_after

_FORBIDDEN = 403
_UNPROCESSABLE = 422
_UNAVAILABLE = 503


class FieldPlace(TypedDict):
    """A field at fault."""

    type: str
    """What is wrong with it, in a word."""
    loc: list[str | int]
    """`body`, `query` or `header`, then the field."""
    input: JsonValue
    """What was given, in part."""


class FieldError(FieldPlace):
    """What is wrong with a field."""

    msg: str


class ConversationError(ErrorFacts):
    """A sentence, or where a field is at fault a list that says which, and why."""

    detail: str | list[FieldError]


def field_error(
    kind: str, where: Sequence[str | int], message: str, given: JsonValue = None
) -> InvalidRequest:
    """A request with a field at fault; `where` is the `loc` of a `FieldPlace`."""
    place: FieldPlace = {"type": kind, "loc": [*where], "input": given}
    return InvalidRequest(message, param=".".join(map(str, where[1:])) or None, details=place)


def error_status(error: KolosalError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, InvalidRequest | KeyMissing):
        return _UNPROCESSABLE
    if isinstance(error, AuthenticationFailed):  # the contract's word for a wrong key
        return _FORBIDDEN
    if isinstance(error, LoadFailed):  # a 422 elsewhere, which here says that the request is wrong
        return _UNAVAILABLE
    return error_row(error).status


def error_response(error: KolosalError, _request_id: str) -> Response:
    """An error before anything was sent."""
    return JsonResponse(
        ConversationError(detail=_detail(error), **error.facts), error_status(error), retry_after(error)
    )


def _detail(error: KolosalError) -> str | list[FieldError]:
    if not isinstance(error, InvalidRequest | KeyMissing):
        return "Forbidden" if isinstance(error, Forbidden | AuthenticationFailed) else error.message
    place: FieldPlace = {"type": "value_error", "loc": ["body"], "input": None}
    if isinstance(error, KeyMissing):
        where = ["query", error.param] if error.param else ["header", "x-api-key"]
        place = {"type": "missing", "loc": [*where], "input": None}
    elif error.details is not None:
        place = cast("FieldPlace", error.details)  # here all details come from `field_error`
    elif error.param:
        place["loc"] += error.param.split(".")
    return [{"type": place["type"], "loc": place["loc"], "msg": error.message, "input": place["input"]}]
