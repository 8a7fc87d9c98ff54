"""The console: a page at `/ui` for whoever runs the daemon. It is a client of the public HTTP API as any other."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.console.markdown import render_markdown
from kolosal.routes.console.pages import Console

__all__ = ["routes"]


def routes() -> list[Route]:
    """The paths of this package."""
    console = Console()
    return [
        Route("/ui", console.show_page),
        Route("/ui/{file}", console.show_file),
        Route("/v1/markdown", render_markdown, methods=["POST"]),
    ]
