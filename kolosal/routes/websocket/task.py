"""SessionTask: one `generate` of a session, through all the turns it takes.

A turn is `text_chunk`s, then either `function_call_request`, after which the task waits for results, or `final_text`. The
last notification of a task is `end`, and there is exactly one, whatever happens.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.websockets import WebSocketDisconnect

from kolosal.errors import (
    ContextLengthExceeded,
    InternalError,
    InvalidRequest,
    KolosalError,
    LoadFailed,
    NotFound,
)
from kolosal.http.disconnect import end_tasks
from kolosal.observe.context import note_error
from kolosal.routes.common.services import Caller
from kolosal.routes.common.tool_turn import ClientToolCall, ToolTurn, TurnOptions, take_turn
from kolosal.routes.jsonrpc.create_message import assistant_message
from kolosal.routes.jsonrpc.envelope import Code, RpcError, RpcNotification, notification
from kolosal.routes.jsonrpc.errors import error_data
from kolosal.routes.jsonrpc.history import HistoryMessage, calls_made, to_messages
from kolosal.routes.websocket.kept_sessions import EVERYTHING, Recalled
from kolosal.routes.websocket.params import SessionToolResult
from kolosal.routes.websocket.sessions import Session

log = logging.getLogger(__name__)

Notify = Callable[[RpcNotification], Awaitable[None]]
"""Sends one notification to the client."""


class PendingCalls:
    """The calls of one turn that wait for their results.

    Results may come in any order and in several messages; the turns they make are in the order of the calls.
    """

    def __init__(self, calls: Sequence[ClientToolCall]) -> None:
        self._calls = calls
        self._turns: dict[int, HistoryMessage] = {}
        self._complete = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether no call waits any more."""
        return self._complete.is_set()

    async def turns(self) -> tuple[HistoryMessage, ...]:
        """All results, once they are there."""
        await self._complete.wait()
        return tuple(self._turns[index] for index in range(len(self._calls)))

    def match(self, results: Sequence[SessionToolResult]) -> dict[int, HistoryMessage]:
        """The turns that results make, by the position of the call they answer; for `put`.

        Raises:
            InvalidRequest: one answers no call, or none that waits for its result.
        """
        found: dict[int, HistoryMessage] = {}
        for number, result in enumerate(results):
            index = self._answered_by(result, found)
            if index is None:
                given = result.tool_call_id or result.tool_name or ""
                raise InvalidRequest(
                    f"results.{number} must answer a call that waits for its result, not {given[:60]!r}",
                    param=f"results.{number}",
                )
            found[index] = result.to_turn(self._calls[index].tool)
        return found

    def put(self, turns: Mapping[int, HistoryMessage]) -> None:
        """Take results."""
        self._turns |= turns
        if len(self._turns) == len(self._calls):
            self._complete.set()

    def _answered_by(self, result: SessionToolResult, found: Mapping[int, HistoryMessage]) -> int | None:
        waiting = (
            (index, call)
            for index, call in enumerate(self._calls)
            if index not in self._turns and index not in found
        )
        if result.tool_call_id is not None:
            return next((index for index, call in waiting if call.id == result.tool_call_id), None)
        return next((index for index, call in waiting if call.tool == result.tool_name), None)


class SessionTask:
    """Used on the event loop only. Whoever starts one calls `stop` in the end: idempotent."""

    def __init__(
        self,
        caller: Caller,
        session: Session,
        options: TurnOptions,
        history: Sequence[HistoryMessage],
        send: Notify,
        *,
        goes_on: bool,
    ) -> None:
        """`goes_on`: the history follows what is kept of the session, which it else takes the place of."""
        self.id = f"task_{secrets.token_hex(12)}"
        self.pending: PendingCalls | None = None
        """The calls whose results are waited for; None while the model generates."""
        self.ended = False
        """`end` was sent, or is being sent."""
        self._caller = caller
        self._session = session
        self._options = options
        self._history = history
        self._send = send
        self._goes_on = goes_on
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to generate."""
        self._running = asyncio.create_task(self._run(), name=self.id)

    async def stop(self) -> None:
        """Stop generating, or waiting for results. Sends nothing."""
        if self._running is not None:
            await end_tasks(self._running)

    async def end(self) -> None:
        """Send the last notification."""
        self.ended = True
        await self._notify("end")

    async def _run(self) -> None:
        try:
            with self._caller.services.registry.observer.activity.part(self.id):
                await self._generate_or_tell()
        except WebSocketDisconnect:
            self.ended = True  # there is nobody to tell; the connection ends by itself

    async def _generate_or_tell(self) -> None:
        try:
            await self._generate()
        except WebSocketDisconnect:
            raise
        except KolosalError as exc:
            log.warning("session.failed", extra={"task_id": self.id, "reason": exc.message})
            await self._fail(exc)
        except Exception:
            log.exception("session.failed", extra={"task_id": self.id})
            await self._fail(InternalError())
        await self.end()

    async def _generate(self) -> None:
        services, history = self._caller.services, list(self._history)
        limits, kept = services.sessions.limits, services.kept_sessions
        earlier = await kept.recall(self._session) if self._goes_on else Recalled([], EVERYTHING)
        for n_called in itertools.count():
            turn = await self._turn(earlier, history, tools_disabled=n_called >= limits.max_legs)
            if not turn.calls:
                if kept.is_on:
                    said = [*history, assistant_message(turn)]
                    await self._remember(said, earlier.forget_until, turn.text)
                await self._notify("final_text", final_text=turn.text)
                return
            self.pending = PendingCalls(turn.calls)
            calls = [{"id": call.id, "tool": call.tool, "parameters": call.parameters} for call in turn.calls]
            await self._notify("function_call_request", tool_calls=calls)
            results = await self._results(self.pending, limits.ttl_s)
            if results is None:
                return
            self.pending = None
            history += [assistant_message(turn), *results]

    async def _turn(
        self, earlier: Recalled, history: Sequence[HistoryMessage], *, tools_disabled: bool
    ) -> ToolTurn:
        """The next turn; of what was said earlier as much is forgotten as there is no room for."""
        while True:
            try:
                return await take_turn(
                    self._caller,
                    self._options,
                    to_messages((*earlier.turns, *history)),
                    calls_made(history),
                    lambda text: self._notify("text_chunk", chunk=text),
                    tools_disabled=tools_disabled,
                )
            except ContextLengthExceeded:
                if not earlier.exchanges:
                    raise
                earlier.forget_half()

    async def _remember(
        self, said: Sequence[HistoryMessage], forget_until: int | None, final_text: str
    ) -> None:
        """Keep what was said; where that cannot be, the client has the answer all the same, and then the error."""
        try:
            await self._caller.services.kept_sessions.remember(self._session, said, forget_until)
        except KolosalError:
            await self._notify("final_text", final_text=final_text)
            raise

    async def _results(self, pending: PendingCalls, patience_s: float) -> tuple[HistoryMessage, ...] | None:
        """What the client's tools gave; None where they gave nothing for too long, which the client is told."""
        try:
            async with asyncio.timeout(patience_s):
                return await pending.turns()
        except TimeoutError:
            await self._tell(RpcError(Code.SERVER, f"No result of the tools came within {patience_s:g} s"))
            return None

    async def _fail(self, error: KolosalError) -> None:
        note_error(error)
        code = Code.NO_MODEL if isinstance(error, NotFound | LoadFailed) else Code.SERVER
        await self._tell(RpcError(code, error.message, data=error_data(error)))

    async def _tell(self, error: RpcError) -> None:
        await self._notify("error", error=error.body())

    async def _notify(self, method: str, **params: object) -> None:
        await self._send(notification(method, {"session_id": self._session.id, "task_id": self.id, **params}))
