"""The Anthropic dialect: messages, and counting their tokens."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.http.dialects import Dialect
from kolosal.routes.anthropic.errors import error_response
from kolosal.routes.anthropic.messages import count_tokens, create_message

__all__ = ["DIALECT", "routes"]

DIALECT = Dialect(("/v1/messages",), error_response, request_id_header="request-id")


def routes() -> list[Route]:
    """The paths of this dialect, under `/v1` only: that is where its clients look, and others mean other things by it."""
    return [
        Route("/v1/messages", create_message, methods=["POST"]),
        Route("/v1/messages/count_tokens", count_tokens, methods=["POST"]),
    ]
