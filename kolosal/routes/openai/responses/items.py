"""Items: what a conversation of the Responses API is made of, as it goes in and as it comes out. Pure.

One set of types for both ways, so that an answer can be kept and read again as input, and the JSON of each, named as in the
official clients.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson
from pydantic import JsonValue
from typing_extensions import TypedDict

from kolosal.routes.openai.encode import ChosenLogprob, token_logprobs
from kolosal.schema import TokenLogprobs

_ID_BYTES = 24

ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
"""How far an item has come."""

MessageRole: TypeAlias = Literal["user", "assistant", "system", "developer"]


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
    role: MessageRole
    content: tuple[TextContent, ...]
    status: ItemStatus = "completed"

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
    status: ItemStatus = "completed"


@dataclass(frozen=True, slots=True)
class CallItem:
    """A function that the model called."""

    id: str
    call_id: str
    name: str
    arguments: str
    """JSON text of an object; only its beginning where the call is incomplete."""
    status: ItemStatus = "completed"


@dataclass(frozen=True, slots=True)
class CallOutputItem:
    """What a call gave."""

    id: str
    call_id: str
    content: str | tuple[TextContent, ...]
    status: ItemStatus = "completed"

    @property
    def text(self) -> str:
        """All of it as text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


OutputItem: TypeAlias = MessageItem | ReasoningItem | CallItem
"""What a response may have in its `output`."""

Item: TypeAlias = OutputItem | CallOutputItem


def new_id(prefix: str) -> str:
    """An id that nobody can guess: `prefix`, `_` and 48 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(_ID_BYTES)}"


class ResponseInputText(TypedDict):
    """Text of a request."""

    type: Literal["input_text"]
    text: str


class ResponseOutputText(TypedDict):
    """Text of the model."""

    type: Literal["output_text"]
    text: str
    annotations: list[JsonValue]
    """Always empty."""
    logprobs: list[ChosenLogprob]
    """Empty unless they were asked for."""


class ResponseOutputRefusal(TypedDict):
    """A refusal that an earlier answer had."""

    type: Literal["refusal"]
    refusal: str


ContentJson: TypeAlias = ResponseInputText | ResponseOutputText | ResponseOutputRefusal


class ResponseMessage(TypedDict):
    """What somebody said."""

    id: str
    type: Literal["message"]
    role: MessageRole
    status: ItemStatus
    content: list[ContentJson]


class ReasoningSummary(TypedDict):
    """A summary that came with the thoughts of a request; none is made here."""

    type: Literal["summary_text"]
    text: str


class ReasoningText(TypedDict):
    """Thoughts, as text."""

    type: Literal["reasoning_text"]
    text: str


class ResponseReasoningItem(TypedDict):
    """What the model thought."""

    id: str
    type: Literal["reasoning"]
    summary: list[ReasoningSummary]
    content: list[ReasoningText]
    status: ItemStatus


class ResponseFunctionToolCall(TypedDict):
    """A function that the model called."""

    id: str
    type: Literal["function_call"]
    call_id: str
    """To be given back in the `function_call_output`."""
    name: str
    arguments: str
    """JSON text of an object that conforms to the tool's schema."""
    status: ItemStatus


class ResponseFunctionCallOutput(TypedDict):
    """What a call gave."""

    id: str
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[ContentJson]
    status: ItemStatus


OutputItemJson: TypeAlias = ResponseMessage | ResponseReasoningItem | ResponseFunctionToolCall
ItemJson: TypeAlias = OutputItemJson | ResponseFunctionCallOutput


def item_json(item: Item) -> ItemJson:
    """An item as the API has it."""
    if not isinstance(item, CallOutputItem):
        return output_item_json(item)
    content = item.content
    return {
        "id": item.id,
        "type": "function_call_output",
        "call_id": item.call_id,
        "output": content if isinstance(content, str) else [content_json(part) for part in content],
        "status": item.status,
    }


def output_item_json(item: OutputItem) -> OutputItemJson:
    """An item of an answer as the API has it."""
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
                "content": [{"type": "reasoning_text", "text": text} for text in item.content],
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


def content_json(part: TextContent) -> ContentJson:
    """One part of a message as the API has it."""
    match part.kind:
        case "refusal":
            return {"type": "refusal", "refusal": part.text}
        case "input_text":
            return {"type": "input_text", "text": part.text}
        case "output_text":
            logprobs = token_logprobs(part.logprobs, spell_control=False)
            return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": logprobs}


def items_bytes(items: tuple[Item, ...]) -> int:
    """What these items take, as JSON."""
    return sum(len(orjson.dumps(item_json(item))) for item in items)
