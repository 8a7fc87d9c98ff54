"""CORS: pages of the origins in `server.cors_origins`, and of this machine's own programs, may use the daemon. Where none may this is
not in the application.

Starlette's, with what this daemon allows: the origin is named in the answer, never `*`, any header may be sent, and
credentials are not allowed: keys travel in headers that scripts set, and no cookie means anything here. `RequestGuard` stands
before it and refuses preflights of other origins, in the shape of their dialect.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from kolosal.security.hosts import AllowedOrigins

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

_EXPOSED = ("X-Request-Id", "Request-Id", "Retry-After", "X-Kolosal-Unenforced")
"""Headers of answers that scripts may read."""

_MAX_REPEATED_CHARS = 1000
"""Of the header names that a preflight lists: they come back in the answer."""


class Cors(CORSMiddleware):
    """Answers preflights, and says in answers that their page may read them."""

    def __init__(self, app: ASGIApp, *, origins: AllowedOrigins) -> None:
        super().__init__(
            app,
            allow_origins=origins.listed,
            allow_methods=_METHODS,
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=_EXPOSED,
        )

        self._origins = origins

    def is_allowed_origin(self, origin: str) -> bool:
        """As the guard says."""
        return self._origins.allows(origin)

    def preflight_response(self, request_headers: Headers) -> Response:
        """As Starlette's, but that success is a 204, and that an endless list of headers is not repeated."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            response.status_code, response.body = 204, b""
            del response.headers["content-length"], response.headers["content-type"]
        if len(request_headers.get("access-control-request-headers", "")) > _MAX_REPEATED_CHARS:
            del response.headers["access-control-allow-headers"]
        return response
