"""From items to the turns of a chat: several items can be one turn of the assistant. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from kolosal.routes.openai.responses.items import (
    CallItem,
    CallOutputItem,
    Item,
    MessageItem,
    ReasoningItem,
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
        match item:
            case ReasoningItem():
                if turn.has_answer:
                    finish_turn()
                turn.thoughts += item.content or item.summary
            case MessageItem(role="assistant"):
                if turn.has_answer:
                    finish_turn()
                turn.text = item.text
            case MessageItem():
                finish_turn()
                messages.append(Message(item.role, item.text))
            case CallItem():
                if item.status == "completed":
                    names[item.call_id] = item.name
                    turn.calls.append(ToolCall(item.call_id, item.name, item.arguments))
            case CallOutputItem():
                finish_turn()
                messages.append(
                    Message("tool", item.text, names.get(item.call_id), tool_call_id=item.call_id)
                )
            case _:
                assert_never(item)
    finish_turn()
    return tuple(messages)
