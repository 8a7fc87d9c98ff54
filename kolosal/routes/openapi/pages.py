"""`GET /openapi.json`, and `GET /docs`, a page that shows it. Nothing on the page comes from another host."""

from __future__ import annotations

import asyncio
import hashlib
from importlib.resources import files
from typing import TypeAlias

import orjson
from starlette.requests import Request
from starlette.responses import Response

from kolosal.errors import NotFound
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.openapi.document import build_document

_PAGE = "docs.html"

_MEDIA_TYPES = {
    _PAGE: "text/html",
    "docs.css": "text/css",
    "docs.js": "text/javascript",
    "examples.js": "text/javascript",
    "schema.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Every file of the page."""

_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""What a browser may do with the page: load from this daemon, run no inline script, stand in no frame."""

_Tagged: TypeAlias = tuple[bytes, str]
"""A body and its ETag."""


class Pages:
    """The pages of one application. The document is built when it is first asked for, beside the event loop."""

    def __init__(self) -> None:
        self._document: _Tagged | None = None

    @Operation(group=Group.DAEMON, scope=Access.ANY_KEY, answer="This document.")
    async def show_openapi(self, request: Request) -> Response:
        """Every path of this daemon, as an OpenAPI 3.1 document."""
        if self._document is None:
            document = await asyncio.to_thread(build_document, request.app.routes)
            self._document = _tagged(orjson.dumps(document))
        return _unless_known(request, self._document, JsonResponse.media_type, {})

    @Operation(group=Group.DAEMON, scope=Access.ANY_KEY, answer="The page.", media_type="text/html")
    async def show_docs(self, request: Request) -> Response:
        """This document, for people."""
        return await _static(request, _PAGE)

    @Operation(group=Group.DAEMON, scope=Access.ANY_KEY, answer="The file.", media_type="*/*")
    async def show_docs_file(self, request: Request) -> Response:
        """A file of the page: its style and its scripts."""
        name = request.path_params["file"]
        if name not in _MEDIA_TYPES:
            raise NotFound(f"Unknown file: {name[:100]} (known: {', '.join(_MEDIA_TYPES)})", param="file")
        return await _static(request, name)


async def _static(request: Request, name: str) -> Response:
    """One of our own files; the name was chosen from a list, never taken from a path."""
    content = await asyncio.to_thread((files(__package__) / "static" / name).read_bytes)
    media_type = f"{_MEDIA_TYPES[name]}; charset=utf-8"
    return _unless_known(request, _tagged(content), media_type, _PAGE_HEADERS)


def _unless_known(request: Request, tagged: _Tagged, media_type: str, headers: dict[str, str]) -> Response:
    """The content, or 304 where the browser has it. It asks each time, so an updated daemon shows at once."""
    content, tag = tagged
    headers = {**headers, "etag": tag, "cache-control": "no-cache"}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, media_type)


def _tagged(content: bytes) -> _Tagged:
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
