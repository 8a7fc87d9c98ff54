"""Tools as the clients of JSON-RPC and of sessions offer them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AliasChoices, Field

from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required
from kolosal.routes.common.tools import ToolDescription, distinct_tools, to_tool
from kolosal.schema import MAX_TOOLS, Tool, ToolName


class RpcFunction(RequestBody):
    """What is said of a tool."""

    name: ToolName | None = None
    """What the model calls it by; required."""
    description: ToolDescription | None = None
    """What it does, for the model."""
    parameters: dict[str, Any] | None = None
    """JSON schema of its parameters, an object; without it any object."""
    input_schema: dict[str, Any] | None = Field(
        None, validation_alias=AliasChoices("inputSchema", "input_schema")
    )
    """Another name of `parameters`, which wins."""


class RpcTool(RpcFunction):
    """A tool, said flatly or in OpenAI's way."""

    type: Annotated[str, Field(max_length=64)] | None = None
    """`function`, where the tool is written in OpenAI's way."""
    function: RpcFunction | None = None
    """The tool, where it is written in OpenAI's way."""


RpcTools: TypeAlias = Annotated[tuple[RpcTool, ...], Field(max_length=MAX_TOOLS)]


def to_tools(tools: Sequence[RpcTool]) -> tuple[Tool, ...]:
    """The tools as engines know them."""
    return distinct_tools(
        _to_tool(tool if tool.function is None else tool.function, f"tools.{index}")
        for index, tool in enumerate(tools)
    )


def _to_tool(fields: RpcFunction, path: str) -> Tool:
    name = required(fields.name, f"{path}.name")
    param = f"{path}.parameters"
    schema = dict(fields.parameters or fields.input_schema or {})
    schema.pop("$schema", None)
    return to_tool(name, fields.description, schema, param)
