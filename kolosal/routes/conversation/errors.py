"""What an error looks like in the conversation dialect: `{"detail": …}`, a list where a field is at fault."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue
from starlette.responses import Response

from kolosal.errors import (
    AuthenticationFailed,
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


def refused(kind: str, where: Sequence[str | int], message: str, given: JsonValue = None) -> InvalidRequest:
    """A request whose fault is told with its place: `where` is `body`, `query` or `header`, then the field."""
    field = ".".join(map(str, where[1:])) or None
    return InvalidRequest(message, param=field, details={"type": kind, "loc": [*where], "input": given})


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
    return JsonResponse({"detail": _detail(error)}, error_status(error), retry_after(error))


def _detail(error: KolosalError) -> JsonValue:
    if isinstance(error, InvalidRequest):
        told = error.details or {"type": "value_error", "loc": _place(error.param), "input": None}
        return [{"type": told["type"], "loc": told["loc"], "msg": error.message, "input": told["input"]}]
    if isinstance(error, KeyMissing):
        where: list[JsonValue] = ["query", error.param] if error.param else ["header", "x-api-key"]
        return [{"type": "missing", "loc": where, "msg": error.message, "input": None}]
    return "Forbidden" if isinstance(error, Forbidden | AuthenticationFailed) else error.message


def _place(param: str | None) -> JsonValue:
    return ["body", *param.split(".")] if param else ["body"]
