"""`GET /openapi.json`, and `GET /docs`, a page that shows it. Nothing on the page comes from another host."""

from __future__ import annotations

import asyncio

import orjson
from starlette.requests import Request
from starlette.responses import Response

from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.static_pages import StaticPages, Tagged, tagged, unless_known
from kolosal.routes.openapi.document import build_document

_PAGE = "docs.html"

_FILES = (_PAGE, "docs.css", "docs.js", "examples.js", "schema.js", "icon.svg")
"""Every file of the page."""


class Pages:
    """The pages of one application. The document is built when it is first asked for, beside the event loop."""

    def __init__(self) -> None:
        self._document: Tagged | None = None
        self._files = StaticPages(__package__, _FILES)

    @Operation(group=Group.DAEMON, scope=Access.ANY_KEY, answer="This document.")
    async def show_openapi(self, request: Request) -> Response:
        """Every path of this daemon, as an OpenAPI 3.1 document."""
        if self._document is None:
            document = await asyncio.to_thread(build_document, request.app.routes)
            self._document = tagged(orjson.dumps(document))
        return unless_known(request, self._document, JsonResponse.media_type, {})

    @Operation(group=Group.DAEMON, scope=Access.OPEN, answer="The page.", media_type="text/html")
    async def show_docs(self, request: Request) -> Response:
        """This document, for people. The page is everybody's; where there are keys it asks for one to load the document with."""
        return await self._files.answer(request, _PAGE)

    @Operation(group=Group.DAEMON, scope=Access.OPEN, answer="The file.", media_type="*/*")
    async def show_docs_file(self, request: Request) -> Response:
        """A file of the page: its style and its scripts."""
        return await self._files.answer(request, request.path_params["file"])
