"""Tools as the clients of JSON-RPC and of sessions offer them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AliasChoices, ConfigDict, Field

from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.http.nesting import json_text
from kolosal.routes.jsonrpc.history import ToolName
from kolosal.schema import MAX_SCHEMA_CHARS, MAX_TOOLS, Tool

MAX_DESCRIPTION_CHARS = 65_536
"""Characters of a tool's description."""


class FunctionFields(RequestBody):
    """What is said of a tool."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", populate_by_name=True)

    name: ToolName | None = None
    """What the model calls it by; required."""
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)] | None = None
    """What it does, for the model."""
    parameters: dict[str, Any] | None = None
    """JSON schema of its parameters, an object; without it any object."""
    input_schema: dict[str, Any] | None = Field(
        None, validation_alias=AliasChoices("inputSchema", "input_schema")
    )
    """Another name of `parameters`, which wins."""


class OfferedTool(FunctionFields):
    """A tool, said flatly or in OpenAI's way."""

    type: Annotated[str, Field(max_length=64)] | None = None
    """`function`, where the tool is written in OpenAI's way."""
    function: FunctionFields | None = None
    """The tool, where it is written in OpenAI's way."""


OfferedTools: TypeAlias = Annotated[tuple[OfferedTool, ...], Field(max_length=MAX_TOOLS)]


def to_tools(offered: Sequence[OfferedTool]) -> tuple[Tool, ...]:
    """The tools as engines know them.

    Raises:
        InvalidRequest: one has no name or that of another, or its schema is too long or not that of an object.
    """
    tools: list[Tool] = []
    for index, each in enumerate(offered):
        path = f"tools.{index}"
        tool = _to_tool(each if each.function is None else each.function, path)
        if any(other.name == tool.name for other in tools):
            raise InvalidRequest(
                f"{path}.name must be unique, but {tool.name[:60]!r} was given before", param=f"{path}.name"
            )
        tools.append(tool)
    return tuple(tools)


def _to_tool(fields: FunctionFields, path: str) -> Tool:
    if fields.name is None:
        raise InvalidRequest(f"Missing required field: {path}.name", param=f"{path}.name")
    param = f"{path}.parameters"
    given = fields.parameters or fields.input_schema or {}
    schema = {name: value for name, value in given.items() if name != "$schema"}
    if schema.get("type", "object") != "object":
        raise InvalidRequest(f"{param}.type must be 'object'", param=f"{param}.type")
    length = len(json_text(schema, param))
    if length > MAX_SCHEMA_CHARS:
        raise InvalidRequest(
            f"{param} must have at most {MAX_SCHEMA_CHARS} characters as JSON, but has {length}", param=param
        )
    return Tool(fields.name, fields.description or "", schema, param=param)
