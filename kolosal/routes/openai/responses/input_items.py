"""`input`: what a request adds to a conversation, from JSON to items.

https://platform.openai.com/docs/api-reference/responses/create#responses_create-input
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias, TypeGuard

import orjson
from pydantic import Discriminator, Field, Tag

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import UNION_ERROR, RequestBody
from kolosal.routes.common.body import required
from kolosal.routes.common.fields import ARRAY, STRING, by_kind
from kolosal.routes.common.tools import ToolCallId
from kolosal.routes.openai.messages import MAX_ARGUMENT_CHARS, MAX_PARTS
from kolosal.routes.openai.responses.items import (
    CallItem,
    ContentPart,
    Item,
    ItemStatus,
    MessageRole,
    new_id,
    output_text,
)
from kolosal.schema import ToolName

MAX_ITEMS = 16_384
"""Items of one conversation, the earlier ones included."""

MAX_TYPE_CHARS = 64
"""Characters of the type of an item, a part or a tool."""

ItemId: TypeAlias = Annotated[ToolCallId, Field(min_length=1)]
"""Of an item, or of the call that an item is about."""

FindItem: TypeAlias = Callable[[str], Item | None]
"""Looks a kept item up by its id."""


class InputPart(RequestBody):
    """One part of a message or of a call's output: text, or the words of a refusal."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    text: str | None = None
    refusal: str | None = None

    def to_content(self, path: str) -> ContentPart:
        """The part; `path` is where it stands."""
        match self.type:
            case "input_text":
                return {"type": "input_text", "text": required(self.text, f"{path}.text")}
            case "output_text":
                return output_text(required(self.text, f"{path}.text"))
            case "refusal":
                return {"type": "refusal", "refusal": required(self.refusal, f"{path}.refusal")}
            case _:
                raise UnsupportedFeature(
                    f"{path}.type is {self.type!r}, but this server reads input_text, output_text and refusal only",
                    param=f"{path}.type",
                )


Content: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[InputPart, ...], Field(max_length=MAX_PARTS), ARRAY],
    by_kind("a string or an array of text parts"),
]


class ItemInput(RequestBody):
    """What all items have, and a client may leave out."""

    id: ItemId | None = None
    status: ItemStatus | None = None


class MessageInput(ItemInput):
    """Something that was said; `type` may be left out."""

    type: Literal["message"] | None = None
    role: MessageRole
    content: Content

    def to_item(self, path: str) -> Item:
        """The item; `path` is where it stands."""
        return {
            "id": self.id or new_id("msg"),
            "type": "message",
            "role": self.role,
            "status": self.status or "completed",
            "content": self._content(path),
        }

    def _content(self, path: str) -> list[ContentPart]:
        if not isinstance(self.content, str):
            return [part.to_content(f"{path}.content.{i}") for i, part in enumerate(self.content)]
        if self.role == "assistant":
            return [output_text(self.content)]
        return [{"type": "input_text", "text": self.content}]


class ThoughtPart(RequestBody):
    """One part of a reasoning item."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    text: str


Thoughts: TypeAlias = Annotated[tuple[ThoughtPart, ...], Field(max_length=MAX_PARTS)]


class ReasoningInput(ItemInput):
    """What the model thought earlier. Its `content` goes to the chat template, or, without any, its `summary`."""

    type: Literal["reasoning"]
    content: Thoughts | None = None
    summary: Thoughts | None = None

    def to_item(self, _path: str) -> Item:
        """The item."""
        return {
            "id": self.id or new_id("rs"),
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": part.text} for part in self.summary or ()],
            "content": [{"type": "reasoning_text", "text": part.text} for part in self.content or ()],
            "status": self.status or "completed",
        }


class CallInput(ItemInput):
    """A function that the model called earlier."""

    type: Literal["function_call"]
    call_id: ItemId
    name: ToolName
    arguments: Annotated[str, Field(max_length=MAX_ARGUMENT_CHARS)]
    """JSON text of an object."""

    def to_item(self, path: str) -> Item:
        """The item; `path` is where it stands. One that is not complete may have anything for arguments."""
        status = self.status or "completed"
        arguments = self.arguments.strip() or "{}"
        if status == "completed" and not _is_object(arguments):
            raise InvalidRequest(
                f"{path}.arguments must be the JSON text of an object, not {arguments[:60]!r}",
                param=f"{path}.arguments",
            )
        return {
            "id": self.id or new_id("fc"),
            "type": "function_call",
            "call_id": self.call_id,
            "name": self.name,
            "arguments": arguments,
            "status": status,
        }


class CallOutputInput(ItemInput):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: ItemId
    output: Content

    def to_item(self, path: str) -> Item:
        """The item; `path` is where it stands."""
        output: str | list[ContentPart]
        if isinstance(self.output, str):
            output = self.output
        else:
            output = [part.to_content(f"{path}.output.{i}") for i, part in enumerate(self.output)]
        return {
            "id": self.id or new_id("fco"),
            "type": "function_call_output",
            "call_id": self.call_id,
            "output": output,
            "status": self.status or "completed",
        }


class ReferenceInput(RequestBody):
    """An item of a response that is kept, by its id; `type` may be left out."""

    type: Literal["item_reference"] | None = None
    id: ItemId


class OtherInput(RequestBody):
    """An item that only OpenAI's own tools make."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]


_TAGS = {
    "message": "<message>",
    "reasoning": "<reasoning>",
    "function_call": "<call>",
    "function_call_output": "<output>",
    "item_reference": "<reference>",
}


def _kind(value: object) -> str | None:
    """Discriminator of items; without a type, one that has a role is a message and one that has an id refers to it."""
    if not isinstance(value, dict):
        return None
    kind = value.get("type")
    if kind is None:
        return "<reference>" if "id" in value and "role" not in value else "<message>"
    return _TAGS.get(kind, "<other>") if isinstance(kind, str) else None


InputItem: TypeAlias = Annotated[
    Annotated[MessageInput, Tag("<message>")]
    | Annotated[ReasoningInput, Tag("<reasoning>")]
    | Annotated[CallInput, Tag("<call>")]
    | Annotated[CallOutputInput, Tag("<output>")]
    | Annotated[ReferenceInput, Tag("<reference>")]
    | Annotated[OtherInput, Tag("<other>")],
    Discriminator(
        _kind, custom_error_type=UNION_ERROR, custom_error_message="an item: an object with a role or a type"
    ),
]

Input: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[InputItem, ...], Field(max_length=MAX_ITEMS), ARRAY],
    by_kind("a string or an array of items"),
]


def to_items(added: Input | None, earlier: tuple[Item, ...], find: FindItem) -> tuple[Item, ...]:
    """What a request adds to the conversation so far."""
    if added is None:
        return ()
    if isinstance(added, str):
        return (MessageInput(role="user", content=added).to_item("input"),)
    calls = {item["call_id"] for item in earlier if _is_whole_call(item)}
    items: list[Item] = []
    for index, entry in enumerate(added):
        item = _to_item(entry, f"input.{index}", find)
        if _is_whole_call(item):
            calls.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in calls:
            call_id = item["call_id"][:60]
            raise InvalidRequest(
                f"input.{index}.call_id must be that of a complete function call before it, not {call_id!r}",
                param=f"input.{index}.call_id",
            )
        items.append(item)
    return tuple(items)


def _to_item(entry: InputItem, path: str, find: FindItem) -> Item:
    if isinstance(entry, OtherInput):
        raise UnsupportedFeature(
            f"{path}.type is {entry.type!r}, but this server knows message, reasoning, function_call,"
            " function_call_output and item_reference only",
            param=f"{path}.type",
        )
    if isinstance(entry, ReferenceInput):
        item = find(entry.id)
        if item is None:
            raise InvalidRequest(
                f"{path}.id is {entry.id[:60]!r}, which is no item of a kept response", param=f"{path}.id"
            )
        return item
    return entry.to_item(path)


def _is_whole_call(item: Item) -> TypeGuard[CallItem]:
    return item["type"] == "function_call" and item["status"] == "completed"


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
