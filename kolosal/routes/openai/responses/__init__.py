"""The Responses API: conversations whose answers the daemon keeps, so that a client need not send them again."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.routes.openai.responses.routes import (
    cancel_response,
    count_input_tokens,
    create_response,
    delete_response,
    list_input_items,
    show_response,
)

__all__ = ["routes"]


def routes(prefix: str) -> list[Route]:
    """The paths of this API under a prefix. What is written out comes before what could be an id."""
    path = f"{prefix}/responses"
    one = f"{path}/{{response_id}}"
    return [
        Route(path, create_response, methods=["POST"]),
        Route(f"{path}/input_tokens", count_input_tokens, methods=["POST"]),
        Route(one, show_response),
        Route(one, delete_response, methods=["DELETE"]),
        Route(f"{one}/cancel", cancel_response, methods=["POST"]),
        Route(f"{one}/input_items", list_input_items),
    ]
