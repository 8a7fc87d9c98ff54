"""History as the clients of JSON-RPC and of sessions carry it, and what it means to an engine. Pure.

Calls have no ids there: a result answers the oldest call of its tool that has none yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, JsonValue

from kolosal.http.decode import RequestBody
from kolosal.http.nesting import json_text
from kolosal.routes.common.tool_turn import CallKey, call_key
from kolosal.schema import Message, ToolCall, ToolName

MAX_TURNS = 10_000
"""Turns of one history."""

MAX_CALLS = 128
"""Calls of one turn, and results of one request."""


class CalledTool(RequestBody):
    """A call that the model made."""

    tool: ToolName
    """The tool's name."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """What it is called with."""


class HistoryMessage(RequestBody):
    """One turn."""

    role: Literal["user", "assistant", "tool", "system"]
    """Whose turn it is."""
    content: str | None = None
    """What was said."""
    tool_calls: Annotated[tuple[CalledTool, ...], Field(max_length=MAX_CALLS)] | None = None
    """Calls, in a turn of the assistant."""
    tool_name: ToolName | None = None
    """The tool whose result this is, in a turn of a tool."""
    tool_result: JsonValue = None
    """What the tool gave; anything."""
    tool_error: str | None = None
    """What went wrong, where the tool failed."""


class ToolResult(RequestBody):
    """What a tool gave."""

    tool_name: ToolName = Field(validation_alias=AliasChoices("toolName", "tool_name"))
    """The tool's name; `tool_name` is the same."""
    result: JsonValue = None
    """What it gave; anything."""
    error: str | None = None
    """What went wrong, where it failed."""

    def to_turn(self) -> HistoryMessage:
        """The result as a turn."""
        return HistoryMessage(
            role="tool", tool_name=self.tool_name, tool_result=self.result, tool_error=self.error
        )


def with_message(history: Sequence[HistoryMessage], message: str | None) -> tuple[HistoryMessage, ...]:
    """The history with a message of the user, unless that is what the user said last."""
    last = next((turn for turn in reversed(history) if turn.role == "user"), None)
    if message is None or (last is not None and last.content == message):
        return tuple(history)
    return (*history, HistoryMessage(role="user", content=message))


def calls_made(history: Sequence[HistoryMessage]) -> frozenset[CallKey]:
    """The calls since the user last said something."""
    keys: set[CallKey] = set()
    for turn in reversed(history):
        if turn.role == "user":
            break
        keys |= {call_key(call.tool, call.parameters) for call in turn.tool_calls or ()}
    return frozenset(keys)


def to_messages(history: Iterable[HistoryMessage]) -> tuple[Message, ...]:
    """The conversation as engines know it. The same history gives the same ids, so that KV cells can be shared."""
    turns: list[Message] = []
    unanswered: list[tuple[str, str]] = []
    n_calls = 0
    for index, turn in enumerate(history):
        if turn.role == "tool":
            name = turn.tool_name or ""
            found = next((open_ for open_ in unanswered if open_[1] == name or not name), None)
            if found is not None:
                unanswered.remove(found)
            call_id, called = found or (f"call_{n_calls}", name)
            turns.append(
                Message("tool", _result_text(turn, f"history.{index}"), name or called, tool_call_id=call_id)
            )
            continue
        calls: list[ToolCall] = []
        for number, call in enumerate(turn.tool_calls or ()):
            n_calls += 1
            path = f"history.{index}.tool_calls.{number}.parameters"
            calls.append(ToolCall(f"call_{n_calls}", call.tool, json_text(call.parameters, path)))
        unanswered += [(call.id, call.name) for call in calls]
        turns.append(Message(turn.role, turn.content or "", tool_calls=tuple(calls)))
    return tuple(turns)


def _result_text(turn: HistoryMessage, path: str) -> str:
    """A result as the model reads it. Where a client put it into `content`, that is it."""
    result = turn.content if turn.tool_result is None else turn.tool_result
    text = result or "" if isinstance(result, str | None) else json_text(result, f"{path}.tool_result")
    if turn.tool_error is None:
        return text
    return f"Error: {turn.tool_error}\n{text}".rstrip()
