"""CORS: pages of the origins in `server.cors_origins` may use the daemon. Without any this is not in the application.

The origin is named in the answer, never `*`, and credentials are not allowed: keys travel in headers that scripts set,
and no cookie means anything here.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kolosal.errors import Forbidden
from kolosal.http.dialects import dialect_of
from kolosal.http.middleware import request_id

_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_MAX_AGE_S = "600"
"""How long a browser remembers what a preflight said."""

_EXPOSED = "X-Request-Id, Request-Id, Retry-After"
"""Headers of answers that scripts may read."""

_MAX_ASKED_CHARS = 1000
"""Of the header names that a preflight asks for: they come back in the answer."""


class Cors:
    """Answers preflights, and says in answers that their page may read them."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None:
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await self._preflight(origin, headers, scope)(scope, receive, send)
            return

        async def send_with_origin(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("Origin")
                if origin in self._origins:
                    answer["access-control-allow-origin"] = origin
                    answer["access-control-expose-headers"] = _EXPOSED
            await send(message)

        await self._app(scope, receive, send_with_origin)

    def _preflight(self, origin: str, asked: Headers, scope: Scope) -> Response:
        if origin not in self._origins:
            refusal = Forbidden(
                f"Pages of the origin {origin[:100]!r} may not use this daemon: add it to the setting server.cors_origins",
                code="origin_not_allowed",
            )
            return dialect_of(scope).encode_error(refusal, request_id(scope))
        answer = Response(status_code=204)
        answer.headers["access-control-allow-origin"] = origin
        answer.headers["access-control-allow-methods"] = _METHODS
        answer.headers["access-control-max-age"] = _MAX_AGE_S
        answer.headers["vary"] = (
            "Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network"
        )
        names = asked.get("access-control-request-headers", "")
        if names and len(names) <= _MAX_ASKED_CHARS:
            answer.headers["access-control-allow-headers"] = names
        if asked.get("access-control-request-private-network") == "true":
            answer.headers["access-control-allow-private-network"] = "true"
        return answer
