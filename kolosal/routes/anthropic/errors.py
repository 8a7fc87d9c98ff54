"""What an error looks like in the Anthropic dialect, as an answer and as an event."""

from __future__ import annotations

from typing import Literal, NotRequired

from starlette.responses import Response
from typing_extensions import TypedDict

from kolosal.errors import ErrorFacts, KolosalError, LoadFailed, error_row
from kolosal.http.responses import JsonResponse, retry_after
from kolosal.http.sse import event_frame

_OVERLOADED = 529
"""Anthropic's own status for what HTTP calls 503."""

_STATUSES = {422: 500, 503: _OVERLOADED}
"""Statuses that Anthropic's API has another number for."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    _OVERLOADED: "overloaded_error",
}
"""By status; all others below 500 are an `invalid_request_error`, and an `api_error` from there on."""


class AnthropicErrorObject(ErrorFacts):
    """What is wrong."""

    type: str
    message: str


class AnthropicError(TypedDict):
    """An error, as the Anthropic clients know it."""

    type: Literal["error"]
    error: AnthropicErrorObject
    request_id: NotRequired[str]
    """Of an answer, not of an event."""


def error_status(error: KolosalError) -> int:
    """The HTTP status of an error."""
    status = error_row(error).status
    return _STATUSES.get(status, status)


def error_body(error: KolosalError) -> AnthropicError:
    """The error without the request's id."""
    status = error_status(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message, **error.facts}}


def error_response(error: KolosalError, request_id: str) -> Response:
    """An error before anything was sent: a real status line."""
    headers = retry_after(error)
    if isinstance(
        error, LoadFailed
    ):  # official clients try again after any 500, and loading would fail again
        headers["x-should-retry"] = "false"
    return JsonResponse(
        AnthropicError(**error_body(error), request_id=request_id), error_status(error), headers
    )


def error_frame(error: KolosalError) -> bytes:
    """The last event of a stream that failed."""
    return event_frame(error_body(error))
