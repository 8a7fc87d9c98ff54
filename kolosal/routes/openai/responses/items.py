"""Items: what a conversation of the Responses API is made of, as it goes in and as it comes out. Pure.

An item is its JSON, so that an answer can be kept and read again as input. It never changes once it is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import orjson
from pydantic import JsonValue
from typing_extensions import TypedDict

from kolosal.routes.openai.encode import ChosenLogprob

_ID_BYTES = 24

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
"""How far an item has come."""

MessageRole: TypeAlias = Literal["user", "assistant", "system", "developer"]


class InputText(TypedDict):
    """Text of a request."""

    type: Literal["input_text"]
    text: str


class OutputText(TypedDict):
    """Text of the model."""

    type: Literal["output_text"]
    text: str
    annotations: list[JsonValue]
    """Always empty."""
    logprobs: list[ChosenLogprob]
    """Empty unless they were asked for."""


class OutputRefusal(TypedDict):
    """A refusal that an earlier answer had."""

    type: Literal["refusal"]
    refusal: str


ContentPart: TypeAlias = InputText | OutputText | OutputRefusal


class MessageItem(TypedDict):
    """What somebody said."""

    id: str
    type: Literal["message"]
    role: MessageRole
    status: ItemStatus
    content: Sequence[ContentPart]


class SummaryText(TypedDict):
    """A summary that came with the thoughts of a request; none is made here."""

    type: Literal["summary_text"]
    text: str


class ReasoningText(TypedDict):
    """Thoughts, as text."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(TypedDict):
    """What the model thought."""

    id: str
    type: Literal["reasoning"]
    summary: Sequence[SummaryText]
    content: Sequence[ReasoningText]
    status: ItemStatus


class CallItem(TypedDict):
    """A function that the model called."""

    id: str
    type: Literal["function_call"]
    call_id: str
    """To be given back in the `function_call_output`."""
    name: str
    arguments: str
    """JSON text of an object that conforms to the tool's schema; only its beginning where the call is incomplete."""
    status: ItemStatus


class CallOutputItem(TypedDict):
    """What a call gave."""

    id: str
    type: Literal["function_call_output"]
    call_id: str
    output: str | Sequence[ContentPart]
    status: ItemStatus


OutputItem: TypeAlias = MessageItem | ReasoningItem | CallItem
"""What a response may have in its `output`."""

Item: TypeAlias = OutputItem | CallOutputItem


def new_id(prefix: str) -> str:
    """An id that nobody can guess: `prefix`, `_` and 48 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(_ID_BYTES)}"


def output_text(text: str, logprobs: Sequence[ChosenLogprob] = ()) -> OutputText:
    """Text of the model."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*logprobs]}


def text_of(content: str | Iterable[ContentPart]) -> str:
    """All parts of a message, or of what a call gave, as one text."""
    if isinstance(content, str):
        return content
    return "".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in content)


def items_bytes(items: Iterable[Item]) -> int:
    """What these items take, as JSON."""
    return sum(len(orjson.dumps(item)) for item in items)
