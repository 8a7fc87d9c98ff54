"""`POST /rpc`: requests and batches of them, and the methods."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.errors import InvalidRequest, KolosalError
from kolosal.http.body import read_json
from kolosal.http.decode import RequestBody, decode_fields
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse, NoContent
from kolosal.observe.context import note_error
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import Caller, caller_of
from kolosal.routes.jsonrpc.create_message import CreateMessageResult, create_message
from kolosal.routes.jsonrpc.envelope import (
    VERSION,
    Code,
    RequestId,
    RpcCall,
    RpcError,
    RpcFailure,
    parse_call,
    parse_json,
)
from kolosal.routes.jsonrpc.errors import rpc_error, rpc_failure_response
from kolosal.routes.jsonrpc.params import CreateMessageParams

MAX_BATCH = 64
"""Requests of one batch; they run side by side."""

_create_message_params: TypeAdapter[CreateMessageParams] = TypeAdapter(CreateMessageParams)


class RpcBody(RequestBody):
    """A request; several may be sent as an array."""

    jsonrpc: Literal["2.0"]
    method: Literal["create_message", "tool_list"]
    """What to do."""
    params: CreateMessageParams | None = None
    """Of `create_message`."""
    id: str | int | None = None
    """Comes back in the answer. A request without an id is not answered: 204."""


class ToolListResult(TypedDict):
    """The result of `tool_list`."""

    tools: list[Any]
    """Always empty: tools are the client's own."""


class RpcSuccess(TypedDict):
    """The answer to a request that went well."""

    jsonrpc: Literal["2.0"]
    result: CreateMessageResult | ToolListResult
    id: RequestId


RpcAnswer: TypeAlias = RpcSuccess | RpcFailure


@Operation(
    group=Group.JSON_RPC,
    scope=Access.INFERENCE,
    body=RpcBody,
    answer="The answer to the request; an array of answers to a batch.",
    empty_statuses={204: "Nothing: the request has no id, so that nobody waits for an answer."},
    example={
        "jsonrpc": "2.0",
        "method": "create_message",
        "params": {"message": "Hello", "max_new_tokens": 64},
        "id": 1,
    },
)
async def call_method(request: Request) -> JsonResponse[RpcAnswer | list[RpcAnswer]] | NoContent:
    """Call a method: `create_message`, the next turn of a conversation with tools, or `tool_list`."""
    body = await read_json(request)
    caller = caller_of(request)
    try:
        value = await in_thread_if_large(len(body), partial(parse_json, body))
        if not isinstance(value, list):
            return await _answer_one(request, caller, value)
        if not 0 < len(value) <= MAX_BATCH:
            raise RpcError(
                Code.INVALID_REQUEST,
                f"Invalid Request: a batch must have 1 to {MAX_BATCH} requests, not {len(value)}",
            )
    except RpcError as exc:
        return rpc_failure_response(exc)
    answers = await unless_disconnected(request, _answer_all(caller, value))
    return JsonResponse(answers) if answers else NoContent()


async def _answer_one(
    request: Request, caller: Caller, value: object
) -> JsonResponse[RpcSuccess] | NoContent:
    call = parse_call(value)
    if call.is_notification:
        return NoContent()
    return JsonResponse(await unless_disconnected(request, _succeed(caller, call)))


async def _answer_all(caller: Caller, values: list[object]) -> list[RpcAnswer]:
    """The answers to a batch, in its order; notifications have none."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_answer_in_batch(caller, value)) for value in values]
    return [answer for task in tasks if (answer := task.result()) is not None]


async def _answer_in_batch(caller: Caller, value: object) -> RpcAnswer | None:
    try:
        call = parse_call(value)
        return None if call.is_notification else await _succeed(caller, call)
    except RpcError as exc:
        return exc.failure()


async def _succeed(caller: Caller, call: RpcCall) -> RpcSuccess:
    """The answer with the result of a method."""
    return {"jsonrpc": VERSION, "result": await _carry_out(caller, call), "id": call.id}


async def _carry_out(caller: Caller, call: RpcCall) -> CreateMessageResult | ToolListResult:
    """The result of a method.

    Raises:
        RpcError: there is no such method, or it failed.
    """
    match call.method:
        case "tool_list":
            return {"tools": []}
        case "create_message":
            try:
                params = decode_fields(_create_message_params, call.params)
                if params.message is None and not params.history:
                    raise InvalidRequest("either 'message' or 'history' is required")
                return await create_message(caller, params)
            except KolosalError as exc:
                note_error(exc)
                raise rpc_error(exc, call) from None
        case _:
            message = f"Method '{call.method[:100]}' not found"
            raise RpcError(Code.METHOD_NOT_FOUND, message, request_id=call.id)
