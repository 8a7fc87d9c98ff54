"""How a WebSocket is closed by us: with an `error` message first, because browsers show neither the status of a refused upgrade
nor, to scripts, much of a close frame.
"""

from __future__ import annotations

import contextlib

import orjson
from starlette.status import WS_1008_POLICY_VIOLATION
from starlette.websockets import WebSocket, WebSocketDisconnect

from kolosal.errors import KolosalError
from kolosal.routes.jsonrpc.envelope import RpcError, notification
from kolosal.routes.jsonrpc.errors import transport_error

_SHOWN_CHARS = 100
"""How much of an unknown session's id is repeated."""

_REASON_CHARS = 100
"""A close frame has room for 123 bytes."""


async def reject(websocket: WebSocket, error: KolosalError) -> None:
    """End a connection that has not been accepted yet. It is accepted, told why, and closed."""
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.accept()
        await close_with_error(websocket, transport_error(error), WS_1008_POLICY_VIOLATION)


async def close_with_error(websocket: WebSocket, error: RpcError, code: int) -> None:
    """End a connection with an `error` notification before its close code."""
    session_id = str(websocket.path_params.get("session_id", ""))[:_SHOWN_CHARS]
    params = {"session_id": session_id, "error": error.body()}
    await websocket.send_text(orjson.dumps(notification("error", params)).decode())
    await websocket.close(code, error.message[:_REASON_CHARS])
