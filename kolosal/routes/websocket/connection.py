"""`/ws/{session_id}`: one connection, from its upgrade to its end.

Owns the close codes: 1003 for messages that are no text, 1008 for a session that is not there and for too many messages,
1013 for too many connections. Sizes, pings and readers that do not read are the protocol's, see `http/websocket.py`.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import orjson
from starlette.status import (
    WS_1003_UNSUPPORTED_DATA,
    WS_1008_POLICY_VIOLATION,
    WS_1013_TRY_AGAIN_LATER,
)
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from kolosal.errors import QueueFull
from kolosal.http.middleware import key_id
from kolosal.routes.common.access import key_of
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of, services_of
from kolosal.routes.jsonrpc.envelope import Code, RpcError
from kolosal.routes.websocket.closing import close_with_error, reject
from kolosal.routes.websocket.rate_limit import RateLimiter
from kolosal.routes.websocket.session_handler import SessionHandler
from kolosal.routes.websocket.sessions import Session

log = logging.getLogger(__name__)


@Operation(
    group=Group.SESSIONS,
    scope=Access.INFERENCE,
    key_in_query=True,
    reject=reject,
    answer="Messages of the session, as JSON-RPC.",
)
async def serve_session(websocket: WebSocket) -> None:
    """Speak with one client until it leaves, or must."""
    store = services_of(websocket).sessions
    session_id = str(websocket.path_params["session_id"])
    await websocket.accept()
    try:
        session = store.connect(session_id, key_id(websocket.scope))
        if session is None:
            await _end(websocket, "Invalid session ID", WS_1008_POLICY_VIOLATION)
            return
    except QueueFull as exc:
        await _end(websocket, exc.message, WS_1013_TRY_AGAIN_LATER)
        return
    except WebSocketDisconnect:
        return
    started = time.monotonic()
    try:
        code = await _serve(websocket, session)
    finally:
        store.disconnect(session)
    duration_s = round(time.monotonic() - started, 1)
    log.debug("websocket.finished", extra={"code": code, "s": duration_s})


async def _serve(websocket: WebSocket, session: Session) -> int:
    """The code with which the connection ends."""
    caller = caller_of(websocket)

    async def send(message: dict[str, Any]) -> None:
        await websocket.send_text(orjson.dumps(message).decode())

    handler = SessionHandler(caller, session, send)
    rate = RateLimiter(caller.services.sessions.limits.messages_per_s, time.monotonic())
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message["code"])
            violation = _violation(message, rate)
            if violation is None and not caller.services.authenticator.still_admits(key_of(websocket.scope)):
                violation = "Unauthorized", WS_1008_POLICY_VIOLATION
            if violation is not None:
                await handler.close()
                await _end(websocket, *violation)
                return violation[1]
            await handler.handle(message["text"])
    except WebSocketDisconnect as exc:
        return exc.code
    finally:
        await handler.close()


def _violation(message: Message, rate: RateLimiter) -> tuple[str, int] | None:
    """Why a message ends the connection, and with which code; None where it may be looked at."""
    if not rate.allows(time.monotonic()):
        return "Too many messages: slow down", WS_1008_POLICY_VIOLATION
    if message.get("text") is None:
        return "Messages must be text", WS_1003_UNSUPPORTED_DATA
    return None


async def _end(websocket: WebSocket, message: str, code: int) -> None:
    await close_with_error(websocket, RpcError(Code.SERVER, message), code)
