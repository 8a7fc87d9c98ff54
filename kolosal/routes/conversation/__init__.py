"""The conversation dialect: `/chat/blocking`, `/chat/stream` and `/ping`."""

from __future__ import annotations

from starlette.routing import Route

from kolosal.http.dialects import Dialect
from kolosal.routes.conversation.endpoints import ask_blocking, chat_blocking, chat_stream, ping
from kolosal.routes.conversation.errors import error_response

__all__ = ["DIALECT", "routes"]

DIALECT = Dialect(("/chat/blocking", "/chat/stream", "/ping"), error_response)


def routes() -> list[Route]:
    """The paths of this dialect."""
    return [
        Route("/chat/blocking", chat_blocking, methods=["POST"]),
        Route("/chat/blocking", ask_blocking, methods=["GET"]),
        Route("/chat/stream", chat_stream, methods=["POST"]),
        Route("/ping", ping, methods=["GET"]),
    ]
