"""History as the clients of JSON-RPC and of sessions carry it, and what it means to an engine. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, JsonValue

from kolosal.chat.events import CallKey, call_key
from kolosal.http.decode import RequestBody
from kolosal.http.nesting import json_text
from kolosal.routes.common.history import ArgumentsObject, LowerCase, with_paired_calls
from kolosal.schema import Message, ToolCall, ToolName

MAX_TURNS = 10_000
"""Turns of one history."""

MAX_CALLS = 128
"""Calls of one turn, and results of one request."""


class CalledTool(RequestBody):
    """A call that the model made."""

    tool: ToolName
    """The tool's name."""
    parameters: ArgumentsObject = Field(default_factory=dict)
    """What it is called with."""


class HistoryMessage(RequestBody):
    """One turn."""

    role: Annotated[Literal["user", "assistant", "tool", "system"], LowerCase]
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

    tool_name: ToolName | None = Field(None, validation_alias=AliasChoices("toolName", "tool_name"))
    """The tool's name; `tool_name` is the same. Left out: the first tool whose call waits for a result."""
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
    """The conversation as engines know it. Calls have no ids here: a result answers the oldest call of its tool that waits."""
    return with_paired_calls(_turn(turn, f"history.{index}") for index, turn in enumerate(history))


def _turn(turn: HistoryMessage, path: str) -> Message:
    if turn.role == "tool":
        return Message("tool", _result_text(turn, path), turn.tool_name)
    calls = tuple(
        ToolCall("", call.tool, json_text(call.parameters, f"{path}.tool_calls.{number}.parameters"))
        for number, call in enumerate(turn.tool_calls or ())
    )
    return Message(turn.role, turn.content or "", tool_calls=calls)


def _result_text(turn: HistoryMessage, path: str) -> str:
    """A result as the model reads it. Where a client put it into `content`, that is it."""
    result = turn.content if turn.tool_result is None else turn.tool_result
    text = result or "" if isinstance(result, str | None) else json_text(result, f"{path}.tool_result")
    if turn.tool_error is None:
        return text
    return f"Error: {turn.tool_error}\n{text}".rstrip()
