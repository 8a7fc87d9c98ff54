"""`input`: what a request adds to a conversation, from JSON to items.

https://platform.openai.com/docs/api-reference/responses/create#responses_create-input
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, TypeGuard, get_args

from pydantic import Discriminator, Field, Tag

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import UNION_ERROR, RequestBody
from kolosal.routes.common.fields import ARRAY, STRING, by_kind
from kolosal.routes.common.history import (
    current_turn,
)
from kolosal.routes.openai.responses.input_calls import (
    CallInput,
    CallOutputInput,
    CustomCallInput,
    OwnCall,
    OwnCallInput,
    OwnOutput,
    OwnOutputInput,
)
from kolosal.routes.openai.responses.input_messages import (
    AgentMessageInput,
    ItemId,
    MessageInput,
    OpenThoughts,
    ReasoningInput,
)
from kolosal.routes.openai.responses.items import (
    MAX_TYPE_CHARS,
    CallItem,
    CallOutputItem,
    CustomCallItem,
    Item,
    SearchCallItem,
)
from kolosal.routes.openai.responses.tools import ToolInput, ToolsInput

MAX_ITEMS = 16_384
"""Items of one conversation, the earlier ones included."""

FindItem: TypeAlias = Callable[[str], Item | None]
"""Looks a kept item up by its id."""


class AdditionalToolsInput(RequestBody):
    """Tools besides those of the request."""

    type: Literal["additional_tools"]
    tools: ToolsInput


class ReferenceInput(RequestBody):
    """An item of a response that is kept, by its id; `type` may be left out."""

    type: Literal["item_reference"] | None = None
    id: ItemId


class OtherInput(RequestBody):
    """An item that only OpenAI's servers make."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]


LEFT_OUT_ITEMS = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "ghost_snapshot",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
        "web_search_call",
    }
)
"""Items that say what OpenAI's servers did. What came of it stands in the answer after them."""

_TAGS = {
    "message": "<message>",
    "reasoning": "<reasoning>",
    "function_call": "<call>",
    "function_call_output": "<output>",
    "agent_message": "<agent>",
    "custom_tool_call": "<custom>",
    "additional_tools": "<tools>",
    "custom_tool_call_output": "<output>",
    **dict.fromkeys(get_args(OwnCall), "<own>"),
    **dict.fromkeys(get_args(OwnOutput), "<own output>"),
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
    | Annotated[AgentMessageInput, Tag("<agent>")]
    | Annotated[CustomCallInput, Tag("<custom>")]
    | Annotated[OwnCallInput, Tag("<own>")]
    | Annotated[OwnOutputInput, Tag("<own output>")]
    | Annotated[AdditionalToolsInput, Tag("<tools>")]
    | Annotated[CallOutputInput, Tag("<output>")]
    | Annotated[ReferenceInput, Tag("<reference>")]
    | Annotated[OtherInput, Tag("<other>")],
    Discriminator(
        _kind, custom_error_type=UNION_ERROR, custom_error_message="an item: an object with a role or a type"
    ),
]

_ToldInput: TypeAlias = (
    MessageInput
    | AgentMessageInput
    | ReasoningInput
    | CallInput
    | CustomCallInput
    | OwnCallInput
    | OwnOutputInput
    | CallOutputInput
    | ReferenceInput
    | OtherInput
)
"""What the model is told of."""

Input: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[InputItem, ...], Field(max_length=MAX_ITEMS), ARRAY],
    by_kind("a string or an array of items"),
]


@dataclass(frozen=True, slots=True)
class ItemSources:
    """What is known besides the request."""

    find: FindItem
    open_thoughts: OpenThoughts


def to_items(added: Input | None, earlier: tuple[Item, ...], sources: ItemSources) -> tuple[Item, ...]:
    """What a request adds to the conversation so far."""
    if added is None:
        return ()
    if isinstance(added, str):
        return (MessageInput(role="user", content=added).to_item("input"),)
    calls = {item["call_id"]: None for item in earlier if _is_whole_call(item)}
    waiting = calls.keys() - {item["call_id"] for item in earlier if _is_output(item)}
    unanswered = [call_id for call_id in calls if call_id in waiting]
    items: list[Item] = []
    current = current_turn([_role(entry) for entry in added])
    for index, entry in enumerate(added):
        if isinstance(entry, AdditionalToolsInput) or entry.type in LEFT_OUT_ITEMS:
            continue
        item = _to_item(entry, f"input.{index}", sources, earlier=index < current)
        if _is_whole_call(item):
            calls[item["call_id"]] = None
            unanswered.append(item["call_id"])
        elif _is_output(item):
            if not item["call_id"] and unanswered:
                item = {**item, "call_id": unanswered[0]}
            if item["call_id"] not in calls:
                call_id = item["call_id"][:60]
                raise InvalidRequest(
                    f"input.{index}.call_id must be that of a complete call before it, not {call_id!r}",
                    param=f"input.{index}.call_id",
                )
            if item["call_id"] in unanswered:
                unanswered.remove(item["call_id"])
        items.append(item)
    return tuple(items)


def references(added: Input | None) -> Iterator[str]:
    """The ids of the kept items that a request refers to."""
    for entry in () if added is None or isinstance(added, str) else added:
        if isinstance(entry, ReferenceInput):
            yield entry.id


def tools_of(added: Input | None) -> Iterator[tuple[str, ToolInput]]:
    """The tools that items bring along, and where they stand."""
    for index, entry in enumerate(() if added is None or isinstance(added, str) else added):
        if isinstance(entry, AdditionalToolsInput | OwnOutputInput):
            for at, tool in enumerate(entry.tools or ()):
                yield f"input.{index}.tools.{at}", tool


def _role(entry: InputItem) -> str:
    """Whose turn an item is a part of; what is kept was answered."""
    if isinstance(entry, MessageInput):
        return entry.role
    calls = CallInput | CustomCallInput | OwnCallInput
    return "assistant" if isinstance(entry, calls | ReasoningInput) else "user"


def _to_item(entry: _ToldInput, path: str, sources: ItemSources, *, earlier: bool) -> Item:
    if isinstance(entry, OtherInput):
        raise UnsupportedFeature(
            f"{path}.type is {entry.type!r}, but this server reads message, reasoning, function_call, custom_tool_call,"
            " their outputs, calls of shells and patches, and item_reference only",
            param=f"{path}.type",
        )
    if isinstance(entry, ReferenceInput):
        item = sources.find(entry.id)
        if item is None:
            raise InvalidRequest(
                f"{path}.id is {entry.id[:60]!r}, which is no item of a kept response", param=f"{path}.id"
            )
        return item
    if isinstance(entry, ReasoningInput):
        return entry.to_item(path, sources.open_thoughts)
    return entry.to_item(path, earlier=earlier)


def _is_whole_call(item: Item) -> TypeGuard[CallItem | CustomCallItem | SearchCallItem]:
    calls = ("function_call", "custom_tool_call", "tool_search_call")
    return item["type"] in calls and item["status"] == "completed"


def _is_output(item: Item) -> TypeGuard[CallOutputItem]:
    return item["type"] in ("function_call_output", "custom_tool_call_output")
