"""Pages that come with the package, and what they load: files of a fixed list, which a browser may keep and asks about each time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from kolosal.errors import NotFound
from kolosal.files.in_thread import in_thread

PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""What a browser may do with a page: load from this daemon, run no inline script, stand in no frame."""

_MEDIA_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}

Tagged: TypeAlias = tuple[bytes, str]
"""A body and its ETag."""


class StaticPages:
    """The files in the folder `static` of a package. Read beside the event loop, each time: there is no copy to go stale."""

    def __init__(
        self, package: str, names: tuple[str, ...], headers: Mapping[str, str] = PAGE_HEADERS
    ) -> None:
        self._folder = files(package) / "static"
        self._names = names
        self._headers = headers

    async def answer(self, request: Request, name: str) -> Response:
        """One of the files.

        Raises:
            NotFound: there is none of that name.
        """
        if name not in self._names:  # chosen from a list, never made of a path
            raise NotFound(f"Unknown file: {name[:100]} (known: {', '.join(self._names)})", param="file")
        content = await in_thread((self._folder / name).read_bytes)
        media_type = f"{_MEDIA_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
        return unless_known(request, tagged(content), media_type, self._headers)


def unless_known(request: Request, content: Tagged, media_type: str, headers: Mapping[str, str]) -> Response:
    """The content, or 304 where the browser has it. It asks each time, so an updated daemon shows at once."""
    body, tag = content
    headers = {**headers, "etag": tag, "cache-control": "no-cache"}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, media_type)


def tagged(content: bytes) -> Tagged:
    """With its ETag."""
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
