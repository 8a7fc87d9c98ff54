"""Exception handlers: whatever a route raises becomes an answer in the shape of the request's dialect.

Unexpected exceptions are not handled here but by `request_log.RequestLog`, which knows the request id.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ExceptionHandler

from kolosal.errors import AuthenticationFailed, InvalidRequest, KolosalError, MethodNotAllowed, NotFound
from kolosal.http.dialects import dialect_of
from kolosal.http.request_log import request_id
from kolosal.observe.context import note_error

CLIENT_CLOSED_REQUEST = 499
"""The status that is logged for a client that left; nobody receives it. The number is nginx's."""

_SHOWN_CHARS = 100
"""How much of a path a message repeats."""


async def on_kolosal_error(request: Request, error: Exception) -> Response:
    """Any error that is meant for clients."""
    assert isinstance(error, KolosalError)  # noqa: S101 - registered for these only
    return _answer(request, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or not with this verb."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for these only
    asked = f"{request.method[:_SHOWN_CHARS]} {request.url.path[:_SHOWN_CHARS]}"
    match error.status_code:
        case 404:
            return _answer(request, NotFound(f"Unknown route: {asked}"))
        case 405:
            # Starlette's own answer names the verbs of the path's first route only
            routes = [route for route in request.app.routes if isinstance(route, Route)]
            here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
            allowed = ", ".join(sorted({verb for route in here for verb in route.methods or ()}))
            message = f"Method not allowed: {asked} (allowed: {allowed})"
            response = _answer(request, MethodNotAllowed(message))
            response.headers["allow"] = allowed
            return response
        case _:
            return _answer(request, InvalidRequest(error.detail))


async def on_client_disconnect(_request: Request, _error: Exception) -> Response:
    """The client left before its answer was ready."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _answer(request: Request, error: KolosalError) -> Response:
    note_error(error)
    response = dialect_of(request.scope).encode_error(error, request_id(request.scope))
    if isinstance(error, AuthenticationFailed):
        response.headers["www-authenticate"] = "Bearer"  # HTTP demands it of every 401
    return response


EXCEPTION_HANDLERS: dict[type[Exception], ExceptionHandler] = {
    KolosalError: on_kolosal_error,
    HTTPException: on_http_exception,
    ClientDisconnect: on_client_disconnect,
}
