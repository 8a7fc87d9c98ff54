"""`create_message`: the next turn of a conversation whose history the client carries."""

from __future__ import annotations

from typing import Any

from kolosal.routes.common.services import Caller
from kolosal.routes.common.tool_turn import ToolTurn, take_leg
from kolosal.routes.jsonrpc.history import (
    CalledTool,
    HistoryMessage,
    calls_made,
    to_messages,
    with_message,
)
from kolosal.routes.jsonrpc.params import CreateMessageParams

_THOUGHT_END = "</think>"


async def create_message(caller: Caller, params: CreateMessageParams) -> dict[str, Any]:
    """The result of the method: a text or calls, and the history with this turn.

    Raises:
        KolosalError: a parameter is not usable, or the generation failed.
    """
    history = conversation(params)
    iteration_count = (params.iteration_count or 0) + bool(params.tool_results)
    leg = await take_leg(
        caller,
        params.asked(),
        to_messages(history),
        calls_made(history),
        _show_nothing,
        withheld=iteration_count >= caller.services.settings.rpc.max_iterations,
    )
    turn = assistant_turn(leg)
    return {
        "type": "tool_calls" if leg.calls else "final_text",
        "content": turn.content
        if turn.tool_calls is None
        else [call.model_dump() for call in turn.tool_calls],
        "history": [each.model_dump() for each in (*history, turn)],
        "iteration_count": iteration_count,
    }


def conversation(params: CreateMessageParams) -> tuple[HistoryMessage, ...]:
    """The history up to the turn that is asked for. Results answer calls of the history, so they come before a new message."""
    results = tuple(result.to_turn() for result in params.tool_results or ())
    if params.history:
        return with_message((*params.history, *results), params.message)
    return (*with_message((), params.message), *results)


def assistant_turn(leg: ToolTurn) -> HistoryMessage:
    """What the model said, as a turn: a final text is what stands after all thoughts."""
    if leg.calls:
        calls = tuple(CalledTool(tool=call.tool, parameters=call.parameters) for call in leg.calls)
        return HistoryMessage(role="assistant", content=leg.text.strip() or None, tool_calls=calls)
    return HistoryMessage(role="assistant", content=leg.text.rpartition(_THOUGHT_END)[2].strip())


async def _show_nothing(_text: str) -> None:
    pass
