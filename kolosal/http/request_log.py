"""What surrounds every request: an id, a log line, and an answer when our own code fails.

Plain ASGI: Starlette's BaseHTTPMiddleware would buffer streams and hide disconnects.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Collection, Sequence
from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kolosal.errors import InternalError
from kolosal.http.dialects import Dialect, note_dialect
from kolosal.observe.activity import CapturedBodies
from kolosal.observe.context import REQUEST, RequestContext, note_error
from kolosal.observe.observer import Observer

log = logging.getLogger(__name__)

_CLIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A request id that a client may choose. Anything else is replaced: it goes into log lines and headers."""

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""The header by which a client says which trace a request belongs to: https://www.w3.org/TR/trace-context/#traceparent-header."""

_WELL = (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED)

_MAX_PLACES_CHARS = 2_000
"""Of the header that tells places in schemas."""

_LOGGED_PATH_CHARS = 200
"""How much of a path a log line holds."""


class RequestLog:
    """Gives each request an id (`X-Request-Id`), logs its end, and answers 500 for what nobody foresaw.

    Also notes the dialect in which the request is answered, since it is the first to see a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access_log: bool,
        quiet_paths: Collection[str] = (),
        dialects: Sequence[Dialect] = (),
        observer: Observer | None = None,
    ) -> None:
        """`observer` is told the status of every answer, 0 where the client left before there was one.

        What goes well on `quiet_paths` is logged at debug: they are asked every few seconds, by whoever waits or watches.
        """
        self._app = app
        self._access_log = access_log
        self._quiet_paths = quiet_paths
        self._dialects = dialects
        self._observer = observer or Observer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given, parent = headers.get("x-request-id", ""), headers.get("traceparent", "")
        request_id = given if _CLIENT_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        context = RequestContext(
            request_id,
            scope["path"][:_LOGGED_PATH_CHARS],
            parent if _TRACE_PARENT.fullmatch(parent) else None,
        )
        REQUEST.set(context)  # for what this request starts: tasks inherit it
        if scope["type"] == "http":
            await self._answer(scope, receive, send, context)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, context: RequestContext) -> None:
        request_id = context.request_id
        dialect = note_dialect(scope, self._dialects)
        started = time.monotonic()
        status, complete = 0, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if context.unenforced:
                    headers["x-kolosal-unenforced"] = places_header(context.unenforced)
                if dialect.request_id_header is not None:
                    headers[dialect.request_id_header] = request_id
            elif message["type"] == "http.response.body":
                if (bodies := _bodies(context)) is not None:
                    bodies.add(bodies.answered, message.get("body", b""))
                complete = complete or not message.get("more_body", False)
            await send(message)

        async def receive_seen() -> Message:
            message = await receive()
            if message["type"] == "http.request" and (bodies := _bodies(context)) is not None:
                bodies.add(bodies.sent, message.get("body", b""))
            return message

        activity = self._observer.activity
        try:
            await self._app(scope, receive_seen if activity.captures else receive, send_with_id)
        except Exception:
            log.exception("request.failed", extra=_fields(scope))
            error = InternalError()
            note_error(error)
            if status:
                raise  # too late for an answer: the server closes the connection, so that the client sees a break
            await dialect.encode_error(error, request_id)(scope, receive, send_with_id)
        finally:
            self._observer.answered(status)
            activity.end(context, status, complete=complete)
            if self._access_log:
                duration_ms = round((time.monotonic() - started) * 1000, 1)
                quiet = status in _WELL and scope["path"] in self._quiet_paths
                level = logging.DEBUG if quiet else logging.INFO
                log.log(
                    level, "request.finished", extra=_fields(scope) | {"status": status, "ms": duration_ms}
                )


def _bodies(context: RequestContext) -> CapturedBodies | None:
    """Where bodies of a request are kept, if they are."""
    return None if context.open_request is None else context.open_request.bodies


def request_id(scope: Scope) -> str:
    """The id of the request at hand, for log lines."""
    return str(scope.get("state", {}).get("request_id", "-"))


def _fields(scope: Scope) -> dict[str, object]:
    return {
        "request_id": request_id(scope),
        "method": scope["method"],
        "path": scope["path"][:_LOGGED_PATH_CHARS],
    }


def places_header(places: Sequence[str]) -> str:
    """As many places as a header has room for, what is not ASCII percent-encoded; then how many more there are."""
    written: list[str] = []
    n_chars = 0
    for place in dict.fromkeys(places):
        encoded = quote(place, safe="#/.~$-_")
        n_chars += len(encoded) + 2
        if n_chars > _MAX_PLACES_CHARS:
            return ", ".join([*written, "and more"])
        written.append(encoded)
    return ", ".join(written)
