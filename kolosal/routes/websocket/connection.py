"""`/ws/{session_id}`: one connection, from its upgrade to its end.

Owns the close codes: 1003 for messages that are no text, 1008 for a session that is not there and for too many messages,
1013 for too many connections. Sizes, pings and readers that do not read are the protocol's, see `http/websocket.py`.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import orjson
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from kolosal.errors import QueueFull
from kolosal.http.middleware import key_id
from kolosal.routes.common.access import key_of
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of, services_of
from kolosal.routes.jsonrpc.envelope import Code, RpcError
from kolosal.routes.websocket.dialogue import Dialogue
from kolosal.routes.websocket.rate import MessageRate
from kolosal.routes.websocket.refusal import REFUSED, close_with_error, turn_away
from kolosal.routes.websocket.sessions import Session

log = logging.getLogger(__name__)

NOT_TEXT = 1003
TRY_LATER = 1013


@Operation(
    group=Group.SESSIONS,
    scope=Access.INFERENCE,
    key_in_query=True,
    turn_away=turn_away,
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
            await _refuse(websocket, "Invalid session ID", REFUSED)
            return
    except QueueFull as exc:
        await _refuse(websocket, exc.message, TRY_LATER)
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

    dialogue = Dialogue(caller, session, send)
    rate = MessageRate(caller.services.sessions.limits.messages_per_s, time.monotonic())
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message["code"])
            if (refusal := _refusal(message, rate)) is not None:
                await dialogue.close()
                await _refuse(websocket, *refusal)
                return refusal[1]
            if not caller.services.authenticator.still_admits(key_of(websocket.scope)):
                await dialogue.close()
                await _refuse(websocket, "Unauthorized", REFUSED)
                return REFUSED
            await dialogue.take(message["text"])
    except WebSocketDisconnect as exc:
        return exc.code
    finally:
        await dialogue.close()


def _refusal(message: Message, rate: MessageRate) -> tuple[str, int] | None:
    """Why a message ends the connection, and with which code; None where it may be looked at."""
    if not rate.allows(time.monotonic()):
        return "Too many messages: slow down", REFUSED
    if message.get("text") is None:
        return "Messages must be text", NOT_TEXT
    return None


async def _refuse(websocket: WebSocket, message: str, code: int) -> None:
    await close_with_error(websocket, RpcError(Code.SERVER, message), code)
