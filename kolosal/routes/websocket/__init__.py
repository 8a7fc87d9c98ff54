"""Sessions: `POST /create_session`, and JSON-RPC over a WebSocket, where the daemon carries a conversation with tools on."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route, WebSocketRoute

from kolosal.http.dialects import Dialect
from kolosal.routes.jsonrpc.errors import detail_response
from kolosal.routes.websocket.connection import serve_session
from kolosal.routes.websocket.create_session import create_session

__all__ = ["DIALECT", "routes"]

DIALECT = Dialect(("/create_session", "/ws"), detail_response)


def routes() -> list[BaseRoute]:
    """The paths of this dialect, without aliases: that is where its clients look."""
    return [
        Route("/create_session", create_session, methods=["POST"]),
        WebSocketRoute("/ws/{session_id}", serve_session),
    ]
