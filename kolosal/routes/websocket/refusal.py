"""How a WebSocket is refused: it is accepted, told why, and closed, because browsers show no status of an upgrade."""

from __future__ import annotations

import contextlib

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from kolosal.errors import KolosalError
from kolosal.routes.jsonrpc.envelope import RpcError, notification
from kolosal.routes.jsonrpc.errors import transport_error

REFUSED = 1008
"""The close code for who may not, or does not behave."""

_SHOWN_CHARS = 100
"""How much of an unknown session's id is repeated."""

_REASON_CHARS = 100
"""A close frame has room for 123 bytes."""


async def turn_away(websocket: WebSocket, error: KolosalError) -> None:
    """End a connection that has not been accepted yet."""
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.accept()
        await close_with_error(websocket, transport_error(error), REFUSED)


async def close_with_error(websocket: WebSocket, error: RpcError, code: int) -> None:
    """End a connection with an `error` notification before its close code."""
    session_id = str(websocket.path_params.get("session_id", ""))[:_SHOWN_CHARS]
    params = {"session_id": session_id, "error": error.body()}
    await websocket.send_text(orjson.dumps(notification("error", params)).decode())
    await websocket.close(code, error.message[:_REASON_CHARS])
