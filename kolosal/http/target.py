"""A request's target in one form: `//v1/models/` is `/v1/models`, and `GET http://host/path` is `/path` at that host.

The outermost of all, so that whoever looks at a path, a host or a dialect sees the same one. `.` and `..` are names like others here: no
path has them. https://www.rfc-editor.org/rfc/rfc9112#section-3.2
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_ABSOLUTE = re.compile(r"https?://(?P<authority>[^/]*)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)


class RequestTarget:
    """Hands on requests with their targets in one form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] in ("http", "websocket")
        await self._app(in_one_form(scope) if known else scope, receive, send)


def in_one_form(scope: Scope) -> Scope:
    """The scope with a path of plain segments, and with the host of an absolute target as its `Host`."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    target, headers = raw.decode("latin-1"), scope["headers"]
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        target = absolute["path"] or "/"
        if sum(name == b"host" for name, _ in headers) <= 1:  # several are refused, also here
            others = [(name, value) for name, value in headers if name != b"host"]
            headers = [(b"host", absolute["authority"].encode("latin-1")), *others]
    elif not target.startswith("/"):
        return scope
    return {**scope, "path": plain_path(target), "headers": headers}


def plain_path(raw_path: str) -> str:
    """A path without empty segments, decoded, but for the `%2F` of a name that holds a slash and the `%25` of one with a `%`."""
    segments = (unquote(segment) for segment in raw_path.split("/") if segment)
    return "/" + "/".join(each.replace("%", "%25").replace("/", "%2F") for each in segments)
