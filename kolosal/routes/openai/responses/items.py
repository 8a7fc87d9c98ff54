"""Items: what a conversation of the Responses API is made of, as it goes in and as it comes out. Pure.

An item is its JSON, so that an answer can be kept and read again as input. It never changes once it is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Literal, NotRequired, TypeAlias

import orjson
from pydantic import JsonValue
from typing_extensions import TypedDict

from kolosal.routes.openai.encode import ChosenLogprob

MAX_TYPE_CHARS = 64
"""Characters of the type of an item, a part or a tool."""

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
    encrypted_content: NotRequired[str]
    """The same thoughts, sealed, where they were asked for; to be given back by clients that drop `content`."""
    status: ItemStatus


class CallItem(TypedDict):
    """A function that the model called."""

    id: str
    type: Literal["function_call"]
    call_id: str
    """To be given back in the `function_call_output`."""
    name: str
    namespace: NotRequired[str]
    """Of a tool of a namespace."""
    arguments: str
    """JSON text of an object that conforms to the tool's schema; only its beginning where the call is incomplete."""
    status: ItemStatus


class CustomCallItem(TypedDict):
    """A custom tool that the model called."""

    id: str
    type: Literal["custom_tool_call"]
    call_id: str
    """To be given back in the `custom_tool_call_output`."""
    name: str
    namespace: NotRequired[str]
    """Of a tool of a namespace."""
    input: str
    """Text in the tool's format; only its beginning where the call is incomplete."""
    status: ItemStatus


class SearchCallItem(TypedDict):
    """A search for more tools, which the client is to make."""

    id: str
    type: Literal["tool_search_call"]
    call_id: str
    """To be given back in the `tool_search_output`."""
    execution: Literal["client"]
    arguments: dict[str, JsonValue]
    """What conforms to the `parameters` of the tool; empty where the call is incomplete."""
    status: ItemStatus


class CallOutputItem(TypedDict):
    """What a call gave."""

    id: str
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: str | Sequence[ContentPart]
    status: ItemStatus


OutputItem: TypeAlias = MessageItem | ReasoningItem | CallItem | CustomCallItem | SearchCallItem
"""What a response may have in its `output`."""

Item: TypeAlias = OutputItem | CallOutputItem


def flat_name(name: str, namespace: str | None) -> str:
    """What the model calls a tool by. `functions` is what OpenAI's models call the tools that are in no namespace."""
    return name if namespace in (None, "functions") else f"{namespace}.{name}"


def new_id(prefix: str) -> str:
    """An id that nobody can guess: `prefix`, `_` and 48 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(_ID_BYTES)}"


def output_text(text: str, logprobs: Sequence[ChosenLogprob] = ()) -> OutputText:
    """Text of the model."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [*logprobs]}


def text_of(content: str | Iterable[ContentPart]) -> str:
    """All parts of a message, or of what a call gave, as one text, joined by line breaks."""
    if isinstance(content, str):
        return content
    texts = (part["refusal"] if part["type"] == "refusal" else part["text"] for part in content)
    return "\n".join(filter(None, texts))


def items_bytes(items: Iterable[Item]) -> int:
    """What these items take, as JSON."""
    return sum(len(orjson.dumps(item)) for item in items)
