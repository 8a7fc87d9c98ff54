"""The daemon's own documentation: `/openapi.json`, and `/docs` to read it in a browser."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.openapi.pages import Pages

__all__ = ["routes"]


def routes() -> list[Route]:
    """The paths of this package."""
    pages = Pages()
    return [
        Route("/openapi.json", pages.show_openapi),
        Route("/docs", pages.show_docs),
        Route("/docs/{file}", pages.show_docs_file),
    ]
