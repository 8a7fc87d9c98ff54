"""Items: what a conversation of the Responses API is made of, as it goes in and as it comes out.

One set of types for both ways, so that an answer can be kept and read again as input. Pure.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias, assert_never

from kolosal.schema import TokenLogprob, TokenLogprobs

_ID_BYTES = 24


class Status(StrEnum):
    """How far an item, or a whole response, has come."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    """Of responses only."""
    CANCELLED = "cancelled"
    """Of responses only."""


@dataclass(frozen=True, slots=True)
class TextContent:
    """One part of a message."""

    kind: Literal["input_text", "output_text", "refusal"]
    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of an answer's tokens, where they were asked for."""


@dataclass(frozen=True, slots=True)
class MessageItem:
    """What somebody said."""

    id: str
    role: str
    content: tuple[TextContent, ...]
    status: Status = Status.COMPLETED

    @property
    def text(self) -> str:
        """All parts, joined."""
        return "".join(part.text for part in self.content)


@dataclass(frozen=True, slots=True)
class ReasoningItem:
    """What the model thought."""

    id: str
    content: tuple[str, ...]
    summary: tuple[str, ...] = ()
    status: Status = Status.COMPLETED


@dataclass(frozen=True, slots=True)
class CallItem:
    """A function that the model called."""

    id: str
    call_id: str
    name: str
    arguments: str
    """JSON text of an object; only its beginning where the call is incomplete."""
    status: Status = Status.COMPLETED


@dataclass(frozen=True, slots=True)
class CallOutputItem:
    """What a call gave."""

    id: str
    call_id: str
    content: str | tuple[TextContent, ...]
    status: Status = Status.COMPLETED

    @property
    def text(self) -> str:
        """All of it as text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


Item: TypeAlias = MessageItem | ReasoningItem | CallItem | CallOutputItem


def new_id(prefix: str) -> str:
    """An id that nobody can guess: `prefix`, `_` and 48 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(_ID_BYTES)}"


def item_json(item: Item) -> dict[str, Any]:
    """An item as the API shows it."""
    match item:
        case MessageItem():
            return {
                "id": item.id,
                "type": "message",
                "role": item.role,
                "status": item.status,
                "content": [content_json(part) for part in item.content],
            }
        case ReasoningItem():
            return {
                "id": item.id,
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": text} for text in item.summary],
                "content": [reasoning_json(text) for text in item.content],
                "status": item.status,
            }
        case CallItem():
            return {
                "id": item.id,
                "type": "function_call",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
                "status": item.status,
            }
        case CallOutputItem():
            content = item.content
            return {
                "id": item.id,
                "type": "function_call_output",
                "call_id": item.call_id,
                "output": content if isinstance(content, str) else [content_json(part) for part in content],
                "status": item.status,
            }
        case _:
            assert_never(item)


def content_json(part: TextContent) -> dict[str, Any]:
    """One part of a message as the API shows it."""
    if part.kind == "refusal":
        return {"type": "refusal", "refusal": part.text}
    if part.kind == "input_text":
        return {"type": "input_text", "text": part.text}
    logprobs = logprobs_json(part.logprobs)
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": logprobs}


def reasoning_json(text: str) -> dict[str, Any]:
    """The one part of a thought."""
    return {"type": "reasoning_text", "text": text}


def logprobs_json(logprobs: tuple[TokenLogprobs, ...]) -> list[dict[str, Any]]:
    """The tokens of an answer with their chances."""
    return [
        _chance_json(token.chosen) | {"top_logprobs": [_chance_json(other) for other in token.top]}
        for token in logprobs
    ]


def _chance_json(chance: TokenLogprob) -> dict[str, Any]:
    data = chance.data
    return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": chance.logprob}
