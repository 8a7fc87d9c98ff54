"""Anthropic's messages and content blocks → turns as engines know them. Pure.

Anthropic's turns hold calls, results, thoughts and text side by side; chat templates want a turn for each result, and the
calls beside the text of the turn that made them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, assert_never

from pydantic import Field

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.http.nesting import json_text
from kolosal.routes.anthropic.blocks import (
    Block,
    Content,
    OtherBlock,
    RedactedThinkingBlock,
    SystemContent,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from kolosal.routes.common.history import LowerCase, current_turn, placeholder, with_paired_calls
from kolosal.schema import Message, ToolCall

MAX_MESSAGES = 100_000
"""Messages of one request: Anthropic's bound."""

_PLACES: dict[type[Block], str] = {
    ThinkingBlock: "assistant",
    RedactedThinkingBlock: "assistant",
    ToolUseBlock: "assistant",
    ToolResultBlock: "user",
}
"""Blocks that stand in messages of one role only."""


class InputMessage(RequestBody):
    """One message as Anthropic clients send it."""

    role: Annotated[Literal["user", "assistant", "system"], LowerCase]
    content: Content = ""


InputMessages = Annotated[tuple[InputMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]


def to_messages(system: SystemContent | None, messages: Sequence[InputMessage]) -> tuple[Message, ...]:
    """The conversation as engines know it."""
    turns: list[Message] = []
    calls: dict[str, str] = {}
    if system:
        text = system if isinstance(system, str) else "\n".join(block.text for block in system)
        turns.append(Message("system", text))
    current = current_turn([message.role for message in messages])
    for index, message in enumerate(messages):
        path = f"messages.{index}.content"
        for turn in _turns(message, path, calls, earlier=index < current):
            _append(turns, turn)
    last = turns[-1]
    if last.role == "assistant" and last.tool_calls:
        raise InvalidRequest(
            f"messages.{len(messages) - 1} must be followed by a message with a tool_result block for each tool_use block",
            param=f"messages.{len(messages) - 1}",
        )
    return with_paired_calls(turns)


def _turns(message: InputMessage, path: str, calls: dict[str, str], *, earlier: bool) -> list[Message]:
    """The turns that one message makes; `calls` holds the tool of each call so far, `earlier` says whether it was answered."""
    if isinstance(message.content, str):
        return [Message(message.role, message.content)]
    for index, block in enumerate(message.content):
        _check_place(block, message.role, f"{path}.{index}", earlier=earlier)
    if message.role == "assistant":
        return [_assistant_turn(message.content, path, calls)]
    turns: list[Message] = []
    for index, block in enumerate(message.content):
        if isinstance(block, TextBlock):
            _append(turns, Message(message.role, block.text))
        elif isinstance(block, ToolResultBlock):
            turns.append(_result_turn(block, f"{path}.{index}", calls, earlier=earlier))
        elif isinstance(block, OtherBlock):
            _append(turns, Message(message.role, placeholder(block.type) or ""))
    return turns or [Message(message.role, "")]


def _check_place(block: Block, role: str, path: str, *, earlier: bool) -> None:
    if isinstance(block, OtherBlock):
        if earlier and placeholder(block.type):
            return
        raise _unsupported(block, path, "text, tool_use, tool_result, thinking and redacted_thinking")
    place = _PLACES.get(type(block), role)
    if place != role:
        raise InvalidRequest(
            f"{path}.type: {block.type} can only stand in a message of the role {place}, not {role}",
            param=f"{path}.type",
        )


def _assistant_turn(blocks: Sequence[Block], path: str, calls: dict[str, str]) -> Message:
    text: list[str] = []
    thinking: list[str] = []
    tool_calls: list[ToolCall] = []
    for index, block in enumerate(blocks):
        match block:
            case TextBlock():
                text.append(block.text)
            case ThinkingBlock():
                thinking.append(block.thinking)
            case ToolUseBlock():
                call_id = block.id or ""
                calls[call_id] = block.name
                tool_calls.append(
                    ToolCall(call_id, block.name, json_text(block.input, f"{path}.{index}.input"))
                )
            case OtherBlock():
                text.append(placeholder(block.type) or "")
            case RedactedThinkingBlock() | ToolResultBlock():
                pass  # the first is of no use to any other model; the other was refused
            case _:
                assert_never(block)
    thought = "\n".join(thinking)
    return Message(
        "assistant", "\n".join(filter(None, text)), tool_calls=tuple(tool_calls), thinking=thought or None
    )


def _result_turn(block: ToolResultBlock, path: str, calls: Mapping[str, str], *, earlier: bool) -> Message:
    name = None if block.tool_use_id is None else calls.get(block.tool_use_id)
    if name is None and block.tool_use_id is not None:
        raise InvalidRequest(
            f"{path}.tool_use_id must be the id of an earlier tool_use block, not {block.tool_use_id[:60]!r}",
            param=f"{path}.tool_use_id",
        )
    content = _result_text(block, path, earlier=earlier)
    if block.is_error:  # a turn has no mark for it, and the model should know
        content = f"Error: {content}" if content else "Error"
    return Message("tool", content, name, tool_call_id=block.tool_use_id)


def _result_text(result: ToolResultBlock, path: str, *, earlier: bool) -> str:
    if result.content is None or isinstance(result.content, str):
        return result.content or ""
    pieces: list[str] = []
    for index, block in enumerate(result.content):
        match block:
            case TextBlock():
                pieces.append(block.text)
            case ToolReferenceBlock():
                pieces.append(block.tool_name)
            case OtherBlock():
                shown = placeholder(block.type) if earlier else None
                if shown is None:
                    raise _unsupported(block, f"{path}.content.{index}", "text and tool_reference")
                pieces.append(shown)
            case _:
                assert_never(block)
    return "\n".join(pieces)


def _append(turns: list[Message], turn: Message) -> None:
    """Add a turn; where the one before is of the same role the two become one, as in Anthropic's API."""
    if not turns or turns[-1].role != turn.role or turn.role == "tool":
        turns.append(turn)
        return
    last = turns[-1]
    thoughts = [thought for thought in (last.thinking, turn.thinking) if thought is not None]
    turns[-1] = replace(
        last,
        content="\n".join(filter(None, (last.content, turn.content))),
        tool_calls=last.tool_calls + turn.tool_calls,
        thinking="\n".join(thoughts) or None,
    )


def _unsupported(block: OtherBlock, path: str, known: str) -> UnsupportedFeature:
    return UnsupportedFeature(
        f"{path}.type: blocks of the type {block.type[:60]!r} are not supported by this server, only {known}",
        param=f"{path}.type",
    )
