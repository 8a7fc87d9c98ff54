"""What an error looks like in the Ollama dialect, as an answer and as a line of a stream: `{"error": "<text>"}`."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from kolosal.errors import ErrorFacts, KolosalError, QueueFull, QuotaExceeded, error_row
from kolosal.http.responses import JsonResponse, retry_after

_STATUSES = {422: 500, 429: 503}
"""Statuses that Ollama has another number for: a model that cannot be loaded, and a full queue."""

_BUSY = "server busy, please try again.  maximum pending requests exceeded"
"""Ollama's words for a full queue, by which clients know it; the two blanks are its own."""


class OllamaError(ErrorFacts):
    """An error, as the Ollama clients know it."""

    error: str


def error_status(error: KolosalError) -> int:
    """The HTTP status of an error."""
    status = error_row(error).status
    if isinstance(error, QuotaExceeded):
        return status  # clients send again at once what was answered 503
    return _STATUSES.get(status, status)


def error_body(error: KolosalError) -> OllamaError:
    """The error as JSON."""
    return {"error": _BUSY if isinstance(error, QueueFull) else error.message, **error.facts}


def error_response(error: KolosalError, _request_id: str) -> Response:
    """An error before anything was sent: a real status line."""
    return JsonResponse(error_body(error), error_status(error), retry_after(error))


def error_line(error: KolosalError) -> bytes:
    """The last line of a stream that failed."""
    return orjson.dumps(error_body(error)) + b"\n"
