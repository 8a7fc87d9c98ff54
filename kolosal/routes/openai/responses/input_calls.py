"""Items of `input` that are calls and what they gave, from JSON to items.

https://platform.openai.com/docs/api-reference/responses/create#responses_create-input
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import Field

from kolosal.chat.events import parsed_arguments
from kolosal.routes.common.body import required
from kolosal.routes.common.history import (
    MAX_ARGUMENT_CHARS,
    ArgumentsText,
)
from kolosal.routes.openai.responses.input_messages import Content, ItemId, ItemInput
from kolosal.routes.openai.responses.items import (
    CallItem,
    ContentPart,
    CustomCallItem,
    Item,
    new_id,
)
from kolosal.routes.openai.responses.tools import ToolsInput
from kolosal.schema import ToolName

OwnCall: TypeAlias = Literal["local_shell_call", "shell_call", "apply_patch_call", "tool_search_call"]
"""Calls of OpenAI's own tools that clients carry out."""

OwnOutput: TypeAlias = Literal[
    "local_shell_call_output", "shell_call_output", "apply_patch_call_output", "tool_search_output"
]


class CallInput(ItemInput):
    """A function that the model called earlier."""

    type: Literal["function_call"]
    call_id: ItemId | None = None
    """Left out: outputs are paired by their order."""
    name: ToolName
    namespace: ToolName | None = None
    """Of a tool of a namespace."""
    arguments: ArgumentsText = "{}"
    """JSON text of an object; all else is as good as `{}`."""

    def to_item(self, path: str, *, earlier: bool) -> Item:  # noqa: ARG002 - as for the others
        """The item; `path` is where it stands. One that is not complete may have anything for arguments."""
        status = self.status or "completed"
        is_whole = status != "completed" or parsed_arguments(self.arguments) is not None
        item: CallItem = {
            "id": self.id or new_id("fc"),
            "type": "function_call",
            "call_id": self.call_id or _made_up_id(path),
            "name": self.name,
            "arguments": self.arguments if is_whole else "{}",
            "status": status,
        }
        return item if self.namespace is None else {**item, "namespace": self.namespace}


class CustomCallInput(ItemInput):
    """A custom tool that the model called earlier."""

    type: Literal["custom_tool_call"]
    call_id: ItemId | None = None
    """As that of a function call."""
    name: ToolName
    namespace: ToolName | None = None
    """Of a tool of a namespace."""
    input: Annotated[str, Field(max_length=MAX_ARGUMENT_CHARS)]

    def to_item(self, path: str, *, earlier: bool) -> Item:  # noqa: ARG002 - as for the others
        """The item; `path` is where it stands."""
        item: CustomCallItem = {
            "id": self.id or new_id("ctc"),
            "type": "custom_tool_call",
            "call_id": self.call_id or _made_up_id(path),
            "name": self.name,
            "input": self.input,
            "status": self.status or "completed",
        }
        return item if self.namespace is None else {**item, "namespace": self.namespace}


class OwnCallInput(ItemInput):
    """A call of one of OpenAI's own tools that the client carried out. To the model it is a function of that name."""

    type: OwnCall
    call_id: ItemId | None = None
    action: dict[str, Any] | None = None
    """Of the shells: what is to be run."""
    operation: dict[str, Any] | None = None
    """Of `apply_patch_call`."""
    arguments: dict[str, Any] | None = None
    """Of `tool_search_call`."""

    def to_item(self, path: str, *, earlier: bool) -> Item:  # noqa: ARG002 - as for the others
        """The item; `path` is where it stands."""
        match self.type:
            case "apply_patch_call":
                given = required(self.operation, f"{path}.operation")
            case "tool_search_call":
                given = required(self.arguments, f"{path}.arguments")
            case _:
                given = required(self.action, f"{path}.action")
        return {
            "id": self.id or new_id("fc"),
            "type": "function_call",
            "call_id": self.call_id or self.id or _made_up_id(path),
            "name": self.type.removesuffix("_call"),
            "arguments": orjson.dumps(given).decode(),
            "status": self.status or "completed",
        }


class OwnOutputInput(ItemInput):
    """What such a call gave."""

    type: OwnOutput
    call_id: ItemId | None = None
    output: Any = None
    """A text, or JSON, which the model reads as such."""
    tools: ToolsInput | None = None
    """Of `tool_search_output`: what was found, and may be called from here on."""

    def to_item(self, path: str, *, earlier: bool) -> Item:  # noqa: ARG002 - as for the others
        """The item; `path` is where it stands."""
        given = self.output
        if given is None:
            given = [tool.echo() for tool in self.tools or ()]
        return {
            "id": self.id or new_id("fco"),
            "type": "function_call_output",
            "call_id": self.call_id or self.id or "",
            "output": given if isinstance(given, str) else orjson.dumps(given).decode(),
            "status": "completed",
        }


class CallOutputInput(ItemInput):
    """What a call gave."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: ItemId | None = None
    """Left out: the first call that waits for its output."""
    output: Content = ""

    def to_item(self, path: str, *, earlier: bool) -> Item:
        """The item; `path` is where it stands, `earlier` whether it was answered. Its call is found later where it names none."""
        output: str | list[ContentPart]
        if isinstance(self.output, str):
            output = self.output
        else:
            output = [
                part.to_content(f"{path}.output.{i}", earlier=earlier) for i, part in enumerate(self.output)
            ]
        return {
            "id": self.id or new_id("fco"),
            "type": self.type,
            "call_id": self.call_id or "",
            "output": output,
            "status": self.status or "completed",
        }


def _made_up_id(path: str) -> str:
    """The id of a call that has none."""
    return f"call_{path.replace('.', '_')}"
