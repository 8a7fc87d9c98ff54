"""`GET /ui`: the console's page, and the files that it loads. Everybody's: what the page asks the daemon for is not."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.static_pages import PAGE_HEADERS, StaticPages

_PAGE = "console.html"

_POLLED = (
    "/v1/engines",
    "/v1/library",
    "/v1/downloads",
    "/v1/activity",
    "/v1/metrics/history",
    "/v1/metrics/system",
    "/v1/markdown",
)
"""What an open console asks for every few seconds."""

FIRST_VIEW = (
    _PAGE, "console.css", "icon.svg", "console.js", "api.js", "dom.js", "format.js", "engines.js", "engine_form.js",
)  # fmt: skip
"""What a browser loads for the first view; the others come with theirs."""

_FILES = (
    *FIRST_VIEW, "models.js", "model_settings.js", "downloads.js", "pull_form.js", "chat.js", "chat_store.js", "activity.js", "metrics.js", "chart.js", "logs.js", "keys.js",
)  # fmt: skip
"""Every file of the page."""

QUIET_PATHS = (*_POLLED, "/ui", *(f"/ui/{name}" for name in _FILES))
"""What is of no interest in the log where it goes well."""

_HEADERS = PAGE_HEADERS | {
    "content-security-policy": PAGE_HEADERS["content-security-policy"] + "; img-src 'self' data: blob:",
}
"""As for other pages; pictures may also be those that a user attaches."""


class Console:
    """The page of one application."""

    def __init__(self) -> None:
        self._files = StaticPages(__package__, _FILES, _HEADERS)

    @Operation(group=Group.DAEMON, scope=Access.OPEN, answer="The page.", media_type="text/html")
    async def show_page(self, request: Request) -> Response:
        """The console: engines, models, chat, activity, metrics, logs and keys, for people. It asks for a key where one is needed."""
        return await self._files.answer(request, _PAGE)

    @Operation(group=Group.DAEMON, scope=Access.OPEN, answer="The file.", media_type="*/*")
    async def show_file(self, request: Request) -> Response:
        """A file of the console: its style and its scripts."""
        return await self._files.answer(request, request.path_params["file"])
