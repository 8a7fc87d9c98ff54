"""What a request must be before anybody looks at what it asks: small headers, one length, a host and an origin of ours, and a
body of no more than so many bytes.

Comes right after `RequestLog`, so refusals have an id, a log line and the shape of their dialect.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kolosal.errors import (
    Forbidden,
    HeadersTooLarge,
    HttpVersionNotSupported,
    InvalidRequest,
    KolosalError,
    PayloadTooLarge,
)
from kolosal.http.dialects import dialect_of
from kolosal.http.request_log import request_id
from kolosal.security.hosts import AllowedHosts, AllowedOrigins, is_own_origin

MAX_HEADERS = 200
"""Headers of one request."""

MAX_HEADER_BYTES = 65_536
"""Bytes of all their names and values. h11 stops at as many, but not where they all come in one packet."""

_SHOWN_CHARS = 100
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Verbs that change nothing: a page of another origin may send them, and is not shown the answer."""


class RequestGuard:
    """Refuses what no honest client sends."""

    def __init__(self, app: ASGIApp, *, hosts: AllowedHosts, origins: AllowedOrigins) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_framed = False
        try:
            check_version(scope["http_version"])
            check_framing(scope["headers"])
            is_framed = True
            self._check_host(Headers(scope=scope))
            self._check_origin(Headers(scope=scope), scope)
        except KolosalError as exc:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": WS_1008_POLICY_VIOLATION})
                return
            refusal = dialect_of(scope).encode_error(exc, request_id(scope))
            if (
                not is_framed
            ):  # what follows could be a part of this request: nothing of it is answered (RFC 9112, 6.3)
                refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """A request without a `Host`, which is HTTP/1.0, comes from no browser."""
        for host in headers.getlist("host"):
            if not self._hosts.allows(host):
                raise Forbidden(
                    f"The host {host[:_SHOWN_CHARS]!r} is not one of this daemon: add it to the setting server.allowed_hosts",
                    code="host_not_allowed",
                )

    def _check_origin(self, headers: Headers, scope: Scope) -> None:
        """A WebSocket is open to pages of all origins unless the server looks, whatever its verb.

        What a page of another site fetches by itself, e.g. as an image, has no `Origin`, but browsers say so. Links that
        somebody follows are let through. A preflight, which pages of our own do not need, is for other origins only.
        """
        harmless = scope.get("method") in _HARMLESS
        from_elsewhere = harmless and headers.get("sec-fetch-site") == "cross-site"
        if from_elsewhere and not (
            self._origins.allows(headers.get("origin", "")) or headers.get("sec-fetch-dest") == "document"
        ):
            raise Forbidden("Pages of other sites may not use this daemon", code="origin_not_allowed")
        preflight = scope.get("method") == "OPTIONS" and "access-control-request-method" in headers
        if harmless and not (preflight and self._origins.any):
            return
        own_host = "" if preflight else headers.get("host", "")
        for origin in headers.getlist("origin"):
            if not (is_own_origin(origin, own_host) or self._origins.allows(origin)):
                raise Forbidden(
                    f"Pages of the origin {origin[:_SHOWN_CHARS]!r} may not use this daemon: add it to the setting"
                    " server.cors_origins",
                    code="origin_not_allowed",
                )


class BodyLimit:
    """Refuses a body that is longer than the limit: by its header before it is read, else at the first byte too many."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, of_paths: Mapping[str, int] | None = None) -> None:
        """`of_paths`: the limits of paths that have their own, or of all below one that ends with a slash."""
        self._app = app
        self._max_bytes = max_bytes
        self._of_paths = of_paths or {}

    def _limit_of(self, path: str) -> int:
        below = (
            limit for each, limit in self._of_paths.items() if each.endswith("/") and path.startswith(each)
        )
        return self._of_paths.get(path) or next(below, self._max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope["path"])
        length = Headers(scope=scope).get("content-length", "")
        announced = int(length) if length.isascii() and length.isdigit() else 0
        received = 0

        async def receive_up_to_limit() -> Message:
            nonlocal received
            if max(announced, received) > limit:
                raise PayloadTooLarge(f"The request body is longer than {limit} bytes")
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise PayloadTooLarge(f"The request body is longer than {limit} bytes")
            return message

        await self._app(scope, receive_up_to_limit, send)


def check_version(version: str) -> None:
    """Refuse what is no HTTP/1: of a later version a request line is the beginning of another protocol.

    Raises:
        HttpVersionNotSupported: it is another one.
    """
    if not version.startswith("1."):
        raise HttpVersionNotSupported(f"HTTP/{version} is not supported by this server: it speaks HTTP/1.1")


def check_framing(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse headers that are too much, or that two servers in a row could understand in two ways.

    Raises:
        HeadersTooLarge: there are too many, or too long ones.
        InvalidRequest: they give two hosts or two lengths.
    """
    if (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES
    ):
        raise HeadersTooLarge(
            f"The request has {len(headers)} headers: at most {MAX_HEADERS} are allowed,"
            f" with {MAX_HEADER_BYTES} bytes in all"
        )
    names = [name for name, _ in headers]
    if b"content-length" in names and b"transfer-encoding" in names:
        raise InvalidRequest(
            "The request has both Content-Length and Transfer-Encoding, and only one is allowed"
        )
    if names.count(b"host") > 1:
        raise InvalidRequest("The request has more than one Host header")
