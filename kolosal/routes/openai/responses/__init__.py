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


def routes() -> list[Route]:
    """The paths of this API. What is written out comes before what could be an id."""
    return [
        Route("/responses", create_response, methods=["POST"]),
        Route("/responses/input_tokens", count_input_tokens, methods=["POST"]),
        Route("/responses/{response_id}", show_response),
        Route("/responses/{response_id}", delete_response, methods=["DELETE"]),
        Route("/responses/{response_id}/cancel", cancel_response, methods=["POST"]),
        Route("/responses/{response_id}/input_items", list_input_items),
    ]
