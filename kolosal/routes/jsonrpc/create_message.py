"""`create_message`: the next turn of a conversation whose history the client carries."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from kolosal.routes.common.services import Caller
from kolosal.routes.common.tool_turn import ToolTurn, take_turn
from kolosal.routes.jsonrpc.history import (
    CalledTool,
    HistoryMessage,
    calls_made,
    to_messages,
    with_message,
)
from kolosal.routes.jsonrpc.params import CreateMessageParams

_THOUGHT_END = "</think>"


class RpcToolCall(TypedDict):
    """A call the model made."""

    tool: str
    parameters: dict[str, Any]


class RpcMessage(TypedDict):
    """A turn of the history."""

    role: Literal["user", "assistant", "tool", "system"]
    content: str | None
    tool_calls: list[RpcToolCall] | None
    tool_name: str | None
    tool_result: Any
    tool_error: str | None


class CreateMessageResult(TypedDict):
    """The result of `create_message`."""

    type: Literal["final_text", "tool_calls"]
    content: str | list[RpcToolCall]
    history: list[RpcMessage]
    """The whole conversation with this turn; to be sent again with the next request."""
    iteration_count: int
    """To be sent again with the results of tools."""


async def create_message(caller: Caller, params: CreateMessageParams) -> CreateMessageResult:
    """The result of the method: a text or calls, and the history with this turn."""
    history = conversation(params)
    iteration_count = (params.iteration_count or 0) + bool(params.tool_results)
    turn = await take_turn(
        caller,
        params.turn_options(),
        to_messages(history),
        calls_made(history),
        _show_nothing,
        tools_disabled=iteration_count >= caller.services.settings.rpc.max_iterations,
    )
    turns = [_rpc_message(each) for each in (*history, assistant_message(turn))]
    calls, content = turns[-1]["tool_calls"], turns[-1]["content"]
    return {
        "type": "final_text" if calls is None else "tool_calls",
        "content": content or "" if calls is None else calls,
        "history": turns,
        "iteration_count": iteration_count,
    }


def _rpc_message(turn: HistoryMessage) -> RpcMessage:
    calls: list[RpcToolCall] = [
        {"tool": call.tool, "parameters": call.parameters} for call in turn.tool_calls or ()
    ]
    return {
        "role": turn.role,
        "content": turn.content,
        "tool_calls": None if turn.tool_calls is None else calls,
        "tool_name": turn.tool_name,
        "tool_result": turn.tool_result,
        "tool_error": turn.tool_error,
    }


def conversation(params: CreateMessageParams) -> tuple[HistoryMessage, ...]:
    """The history up to the turn that is asked for. Results answer calls of the history, so they come before a new message."""
    results = tuple(result.to_turn() for result in params.tool_results or ())
    if params.history:
        return with_message((*params.history, *results), params.message)
    return (*with_message((), params.message), *results)


def assistant_message(turn: ToolTurn) -> HistoryMessage:
    """What the model said, as a turn: a final text is what stands after all thoughts."""
    if turn.calls:
        calls = tuple(CalledTool(tool=call.tool, parameters=call.parameters) for call in turn.calls)
        return HistoryMessage(role="assistant", content=turn.text.strip() or None, tool_calls=calls)
    return HistoryMessage(role="assistant", content=turn.text.rpartition(_THOUGHT_END)[2].strip())


async def _show_nothing(_text: str) -> None:
    pass
