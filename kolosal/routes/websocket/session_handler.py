"""SessionHandler: the JSON-RPC messages of one connection, and what they are answered.

At most one task at a time, and a call that waits for its result counts. Knows no WebSocket: it is given texts and sends
messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from kolosal.errors import ClientError
from kolosal.http.decode import decode_fields
from kolosal.http.large import in_thread_if_large
from kolosal.routes.common.services import Caller
from kolosal.routes.jsonrpc.envelope import (
    VERSION,
    Code,
    RequestId,
    RpcCall,
    RpcError,
    RpcFailure,
    RpcNotification,
    notification,
    parse_call,
    parse_json,
)
from kolosal.routes.jsonrpc.errors import error_data
from kolosal.routes.jsonrpc.history import to_messages, with_message
from kolosal.routes.websocket.params import GenerateParams, ToolResultParams
from kolosal.routes.websocket.sessions import Session
from kolosal.routes.websocket.task import SessionTask

_generate_params: TypeAdapter[GenerateParams] = TypeAdapter(GenerateParams)
_tool_result_params: TypeAdapter[ToolResultParams] = TypeAdapter(ToolResultParams)

P = TypeVar("P")

Status: TypeAlias = Literal["processing", "received", "received_ignored", "cancelled"]


class StatusResult(TypedDict):
    """The result of every method."""

    status: Status


class StatusAnswer(TypedDict):
    """The answer to a request that went well."""

    jsonrpc: Literal["2.0"]
    result: StatusResult
    id: RequestId


Outgoing: TypeAlias = StatusAnswer | RpcFailure | RpcNotification
"""A message to the client."""


class SessionHandler:
    """One connection's. Messages are handed in one after the other; `close` ends what runs."""

    def __init__(self, caller: Caller, session: Session, send: Callable[[Outgoing], Awaitable[None]]) -> None:
        self._caller = caller
        self._session = session
        self._send = send
        self._task: SessionTask | None = None

    async def close(self) -> None:
        """The connection has ended: nothing is generated for nobody."""
        if self._task is not None:
            await self._task.stop()

    async def handle(self, text: str) -> None:
        """Do what a message asks for. Whatever it is, it gets an answer; one without an id only where it fails."""
        try:
            call = parse_call(await in_thread_if_large(len(text), partial(parse_json, text)))
        except RpcError as exc:
            await self._send(exc.failure())
            return
        try:
            await self._dispatch(call, len(text))
        except RpcError as exc:
            exc.request_id = call.id
            if call.is_notification:
                params = {"session_id": self._session.id, "error": exc.body()}
                await self._send(notification("error", params))
            else:
                await self._send(exc.failure())

    async def _dispatch(self, call: RpcCall, n_bytes: int) -> None:
        match call.method:
            case "generate":
                await self._generate(call, await _params(_generate_params, call, n_bytes))
            case "tool_result":
                await self._tool_result(call, await _params(_tool_result_params, call, n_bytes))
            case "cancel":
                await self._cancel(call)
            case _:
                raise RpcError(Code.METHOD_NOT_FOUND, "Method not found", data={"method": call.method})

    async def _generate(self, call: RpcCall, params: GenerateParams) -> None:
        if self._active is not None:
            raise RpcError(Code.BUSY, "Generation already in progress")
        if params.message is None and not params.history:
            raise RpcError(Code.INVALID_PARAMS, "Cannot generate without history or message")
        goes_on = params.history is None and self._caller.services.kept_sessions.is_on
        history = with_message(params.history or (), params.message)
        try:
            options = params.turn_options(self._session.tools, self._session.model)
            to_messages(history)  # what is wrong with the history is told now and not after the response
        except ClientError as exc:
            raise _invalid_params(call, exc) from None
        await self._respond(call, "processing")
        self._task = SessionTask(self._caller, self._session, options, history, self._send, goes_on=goes_on)
        self._task.start()

    async def _tool_result(self, call: RpcCall, params: ToolResultParams) -> None:
        task = self._active
        if task is None:
            await self._respond(call, "received_ignored")
            return
        pending = task.pending
        if pending is None or pending.complete:
            raise RpcError(Code.INTERNAL, "Cannot process tool result while generation is active")
        if params.task_id != task.id:
            raise RpcError(
                Code.INVALID_PARAMS,
                f"Invalid parameters for tool_result: task_id must be {task.id!r}, not {params.task_id[:60]!r}",
            )
        try:
            turns = pending.match(params.results)
        except ClientError as exc:
            raise _invalid_params(call, exc) from None
        await self._respond(call, "received")
        pending.put(turns)

    async def _cancel(self, call: RpcCall) -> None:
        task = self._active
        if task is None:
            raise RpcError(Code.NOTHING_TO_CANCEL, "No active generation to cancel")
        await task.stop()
        await self._respond(call, "cancelled")
        await task.end()

    @property
    def _active(self) -> SessionTask | None:
        return None if self._task is None or self._task.ended else self._task

    async def _respond(self, call: RpcCall, status: Status) -> None:
        if not call.is_notification:
            await self._send({"jsonrpc": VERSION, "result": {"status": status}, "id": call.id})


async def _params(adapter: TypeAdapter[P], call: RpcCall, n_bytes: int) -> P:
    try:
        return await in_thread_if_large(n_bytes, partial(decode_fields, adapter, call.params))
    except ClientError as exc:
        raise _invalid_params(call, exc) from None


def _invalid_params(call: RpcCall, error: ClientError) -> RpcError:
    return RpcError(
        Code.INVALID_PARAMS,
        f"Invalid parameters for {call.method}: {error.message}",
        data=error_data(error),
    )
