"""`/ws/{session_id}`: one connection, from its upgrade to its end.

Owns the close codes: 1003 for messages that are no text, 1008 for a session that is not there and for too many messages,
1013 for too many connections, and where kept sessions cannot be looked for. Sizes, pings and readers that do not read are the protocol's, see `http/websocket.py`.
"""

from __future__ import annotations

import contextlib
import logging
import time

import orjson
from starlette.status import (
    WS_1003_UNSUPPORTED_DATA,
    WS_1008_POLICY_VIOLATION,
    WS_1013_TRY_AGAIN_LATER,
)
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from kolosal.errors import AuthenticationFailed, KolosalError, QueueFull, StoreUnavailable
from kolosal.http.disconnect import unless_revoked
from kolosal.routes.common.access import key_of
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import Caller, caller_of
from kolosal.routes.jsonrpc.envelope import Code, RpcError, notification
from kolosal.routes.jsonrpc.errors import transport_error
from kolosal.routes.websocket.session_handler import Outgoing, SessionHandler
from kolosal.routes.websocket.sessions import Session

log = logging.getLogger(__name__)

BURST_S = 4.0
"""A connection that was silent may send as many messages at once as it may in this time."""

_UNAUTHORIZED = "Unauthorized", WS_1008_POLICY_VIOLATION
"""Why a connection ends whose key was taken back, and with which code."""

_SHOWN_CHARS = 100
"""How much of an unknown session's id is repeated."""

_REASON_CHARS = 100
"""A close frame has room for 123 bytes."""


class RateLimiter:
    """Counts the messages of one connection, as a token bucket (https://en.wikipedia.org/wiki/Token_bucket). Pure."""

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._left = self._most
        self._counted_at = now

    def allows(self, now: float) -> bool:
        """Whether one more message may come now; counts it."""
        self._left = min(self._most, self._left + (now - self._counted_at) * self._per_s)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


async def reject(websocket: WebSocket, error: KolosalError) -> None:
    """End a connection that has not been accepted yet.

    It is accepted, told why, and closed, because browsers show neither the status of a refused upgrade nor, to scripts, much of a
    close frame.
    """
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.accept()
        await _close(websocket, transport_error(error), WS_1008_POLICY_VIOLATION)


@Operation(
    group=Group.SESSIONS,
    scope=Access.INFERENCE,
    key_in_query=True,
    reject=reject,
    answer="Messages of the session, as JSON-RPC.",
)
async def serve_session(websocket: WebSocket) -> None:
    """Speak with one client until it leaves, or must."""
    caller = caller_of(websocket)
    store = caller.services.sessions
    session_id = str(websocket.path_params["session_id"])
    await websocket.accept()
    try:
        session = await _connected(caller, session_id)
        if session is None:
            await _end(websocket, "Invalid session ID", WS_1008_POLICY_VIOLATION)
            return
    except (QueueFull, StoreUnavailable) as exc:
        await _end(websocket, exc.message, WS_1013_TRY_AGAIN_LATER)
        return
    except WebSocketDisconnect:
        return
    started = time.monotonic()
    try:
        code = await _serve(websocket, caller, session)
    finally:
        store.disconnect(session)
    duration_s = round(time.monotonic() - started, 1)
    log.debug("websocket.finished", extra={"code": code, "s": duration_s})


async def _connected(caller: Caller, session_id: str) -> Session | None:
    """The session of that id, in use; None where there is none.

    Raises:
        QueueFull: there are too many connections or sessions.
        StoreUnavailable: it cannot be looked for.
    """
    sessions, kept = caller.services.sessions, caller.services.kept_sessions
    session = sessions.connect(session_id, caller.key_id)
    if session is None and kept.is_on and (found := await kept.find(session_id, caller.key_id)) is not None:
        sessions.add(found)
        session = sessions.connect(session_id, caller.key_id)
    return session


async def _serve(websocket: WebSocket, caller: Caller, session: Session) -> int:
    """The code with which the connection ends."""

    async def send(message: Outgoing) -> None:
        await websocket.send_text(orjson.dumps(message).decode())

    handler = SessionHandler(caller, session, send)
    authenticator = caller.services.authenticator
    rate = RateLimiter(caller.services.sessions.limits.messages_per_s, time.monotonic())
    try:
        while True:
            violation: tuple[str, int] | None
            try:
                message = await unless_revoked(websocket.scope, websocket.receive())
            except AuthenticationFailed:
                violation = _UNAUTHORIZED
            else:
                if message["type"] == "websocket.disconnect":
                    return int(message["code"])
                violation = _violation(message, rate)
                if violation is None and not authenticator.still_admits(key_of(websocket.scope)):
                    violation = _UNAUTHORIZED
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
    await _close(websocket, RpcError(Code.SERVER, message), code)


async def _close(websocket: WebSocket, error: RpcError, code: int) -> None:
    """End a connection with an `error` notification before its close code."""
    session_id = str(websocket.path_params.get("session_id", ""))[:_SHOWN_CHARS]
    params = {"session_id": session_id, "error": error.body()}
    await websocket.send_text(orjson.dumps(notification("error", params)).decode())
    await websocket.close(code, error.message[:_REASON_CHARS])
