"""What surrounds every request: an id, a log line, and an answer when our own code fails.

Plain ASGI: Starlette's BaseHTTPMiddleware would buffer streams and hide disconnects.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kolosal.errors import InternalError
from kolosal.http.dialects import Dialect, note_dialect
from kolosal.observe.context import REQUEST_ID, TRACE_PARENT

log = logging.getLogger(__name__)

_CLIENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A request id that a client may choose. Anything else is replaced: it goes into log lines and headers."""

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""The header by which a client says which trace a request belongs to: https://www.w3.org/TR/trace-context/#traceparent-header."""

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
        on_end: Callable[[int], None] = lambda _status: None,
    ) -> None:
        """`on_end` is told the status of every answer, 0 where the client left before there was one.

        What goes well on `quiet_paths` is logged at debug: they are asked every few seconds, by whoever waits or watches.
        """
        self._app = app
        self._access_log = access_log
        self._quiet_paths = quiet_paths
        self._dialects = dialects
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given, parent = headers.get("x-request-id", ""), headers.get("traceparent", "")
        request_id = given if _CLIENT_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        REQUEST_ID.set(request_id)  # for what this request starts: tasks inherit it
        TRACE_PARENT.set(parent if _TRACE_PARENT.fullmatch(parent) else None)
        dialect = note_dialect(scope, self._dialects)
        started = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if dialect.request_id_header is not None:
                    headers[dialect.request_id_header] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request.failed", extra=_fields(scope))
            if status:
                raise  # too late for an answer: the server closes the connection, so that the client sees a break
            await dialect.encode_error(InternalError(), request_id)(scope, receive, send_with_id)
        finally:
            self._on_end(status)
            if self._access_log:
                duration_ms = round((time.monotonic() - started) * 1000, 1)
                quiet = status == HTTPStatus.OK and scope["path"] in self._quiet_paths
                level = logging.DEBUG if quiet else logging.INFO
                log.log(
                    level, "request.finished", extra=_fields(scope) | {"status": status, "ms": duration_ms}
                )


def request_id(scope: Scope) -> str:
    """The id of the request at hand, for log lines."""
    return str(scope.get("state", {}).get("request_id", "-"))


def _fields(scope: Scope) -> dict[str, object]:
    return {
        "request_id": request_id(scope),
        "method": scope["method"],
        "path": scope["path"][:_LOGGED_PATH_CHARS],
    }
