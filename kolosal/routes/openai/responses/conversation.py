"""From items to the turns of a chat: several items can be one turn of the assistant. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from kolosal.routes.openai.custom_tools import arguments_of
from kolosal.routes.openai.responses.items import (
    CallItem,
    CustomCallItem,
    Item,
    SearchCallItem,
    flat_name,
    text_of,
)
from kolosal.schema import Message, ToolCall


@dataclass(slots=True)
class _AssistantTurn:
    """A turn being put together: thoughts, then text, then calls."""

    thoughts: list[str] = field(default_factory=list)
    text: str | None = None
    calls: list[ToolCall] = field(default_factory=list)

    @property
    def has_answer(self) -> bool:
        return self.text is not None or bool(self.calls)

    @property
    def message(self) -> Message:
        thinking = "\n".join(self.thoughts) or None
        return Message("assistant", self.text or "", tool_calls=tuple(self.calls), thinking=thinking)


def to_messages(instructions: str | None, items: Iterable[Item]) -> tuple[Message, ...]:
    """The chat that these items are, with the instructions as its first turn.

    A call that was cut off is left out: its arguments are no JSON.
    """
    messages = [] if not instructions else [Message("system", instructions)]
    names: dict[str, str] = {}
    turn = _AssistantTurn()

    def finish_turn() -> None:
        nonlocal turn
        if turn.has_answer or turn.thoughts:
            messages.append(turn.message)
            turn = _AssistantTurn()

    for item in items:
        if item["type"] == "reasoning":
            if turn.has_answer:
                finish_turn()
            turn.thoughts += [part["text"] for part in item["content"] or item["summary"]]
        elif (
            item["type"] == "function_call"
            or item["type"] == "custom_tool_call"
            or item["type"] == "tool_search_call"
        ):
            if (call := _whole_call(item)) is not None:
                names[call.id] = call.name
                turn.calls.append(call)
        elif item["type"] == "function_call_output" or item["type"] == "custom_tool_call_output":
            finish_turn()
            name, call_id = names.get(item["call_id"]), item["call_id"]
            messages.append(Message("tool", text_of(item["output"]), name, tool_call_id=call_id))
        elif item["role"] == "assistant":
            if turn.has_answer:
                finish_turn()
            turn.text = text_of(item["content"])
        else:
            finish_turn()
            messages.append(Message(item["role"], text_of(item["content"])))
    finish_turn()
    return tuple(messages)


def _whole_call(item: CallItem | CustomCallItem | SearchCallItem) -> ToolCall | None:
    """The call as engines know it; None where it was cut off."""
    if item["status"] != "completed":
        return None
    call_id = item["call_id"]
    if item["type"] == "tool_search_call":
        return ToolCall(call_id, "tool_search", orjson.dumps(item["arguments"]).decode())
    name = flat_name(item["name"], item.get("namespace"))
    return ToolCall(
        call_id, name, item["arguments"] if item["type"] == "function_call" else arguments_of(item["input"])
    )
