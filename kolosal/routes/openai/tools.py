"""Tools as OpenAI clients offer them, and which of them are to be called."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.http.nesting import json_text
from kolosal.routes.common.fields import OBJECT, STRING, kinds
from kolosal.schema import MAX_SCHEMA_CHARS, MAX_TOOL_NAME_CHARS, MAX_TOOLS, Tool, ToolMode, ToolUse

ToolName: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_TOOL_NAME_CHARS, pattern=r"^[A-Za-z0-9_.:/-]+$")
]
"""Letters, digits and `_ . : / -`: more than OpenAI allows, as tools of other systems have such names."""

MAX_DESCRIPTION_CHARS = 65_536
"""Characters of a tool's description."""


class FunctionDefinition(RequestBody):
    """A function a model may call. Arguments always conform to `parameters`; see `Tool.strict`."""

    name: ToolName
    """What the model calls it by."""
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)] | None = None
    """What it does, for the model."""
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments, an object; without it any object."""
    strict: bool | None = None
    """Makes no difference: arguments always conform."""

    def to_tool(self, path: str) -> Tool:
        """The function as engines know it; `path` is where it stands.

        Raises:
            InvalidRequest: its parameters are too long or too deep.
        """
        parameters = self.parameters or {}
        check_schema_size(parameters, f"{path}.parameters")
        return Tool(self.name, self.description or "", parameters, strict=bool(self.strict))


class ToolDefinition(RequestBody):
    """One of `tools`."""

    type: Annotated[str, Field(max_length=64)]
    """Must be `function`."""
    function: FunctionDefinition | None = None


Tools: TypeAlias = Annotated[tuple[ToolDefinition, ...], Field(max_length=MAX_TOOLS)]


class NamedFunction(RequestBody):
    """The name of a function."""

    name: ToolName


class NamedTool(RequestBody):
    """A tool by its name."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(RequestBody):
    """`allowed_tools` of a tool choice."""

    mode: Literal["auto", "required"]
    """Whether one of them must be called."""
    tools: Annotated[tuple[NamedTool, ...], Field(min_length=1, max_length=MAX_TOOLS)]
    """The tools that may be called."""


class ChoiceObject(RequestBody):
    """`tool_choice` as an object: one function that must be called, or some that may be."""

    type: Literal["function", "allowed_tools"]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None

    def to_mode(self) -> tuple[ToolMode, tuple[str, ...]]:
        """Whether tools are called, and which may be.

        Raises:
            InvalidRequest: the field that the type asks for is missing.
        """
        if self.type == "function":
            if self.function is None:
                raise InvalidRequest(
                    "Missing required field: tool_choice.function", param="tool_choice.function"
                )
            return ToolMode.REQUIRED, (self.function.name,)
        if self.allowed_tools is None:
            raise InvalidRequest(
                "Missing required field: tool_choice.allowed_tools", param="tool_choice.allowed_tools"
            )
        return ToolMode(self.allowed_tools.mode), tuple(t.function.name for t in self.allowed_tools.tools)


ToolChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], STRING] | Annotated[ChoiceObject, OBJECT],
    kinds('"none", "auto", "required" or an object'),
]


def to_tool_use(
    tools: tuple[ToolDefinition, ...] | None, choice: ToolChoice | None, *, parallel: bool | None
) -> ToolUse:
    """The tools of a request and how they are to be used.

    Raises:
        InvalidRequest: two tools have the same name, or the choice names one that is not offered.
        UnsupportedFeature: a tool is no function.
    """
    offered = tuple(_to_tool(tool, f"tools.{i}") for i, tool in enumerate(tools or ()))
    mode, only = choice.to_mode() if isinstance(choice, ChoiceObject) else (ToolMode(choice or "auto"), ())
    return tool_use(offered, mode, only, parallel=parallel is not False)


def tool_use(tools: tuple[Tool, ...], mode: ToolMode, only: tuple[str, ...], *, parallel: bool) -> ToolUse:
    """The same from tools as engines know them, for all dialects.

    Raises:
        InvalidRequest: two tools have the same name, or the choice names one that is not offered.
    """
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidRequest(
                f"tools.{index} has the name {name!r} of an earlier tool", param=f"tools.{index}"
            )
    for name in only:
        if name not in names:
            raise InvalidRequest(
                f"tool_choice names {name!r}, which is none of the tools", param="tool_choice"
            )
    if mode is ToolMode.REQUIRED and not tools:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools", param="tool_choice")
    return ToolUse(tools, mode, only, parallel)


def check_schema_size(schema: dict[str, Any], path: str) -> None:
    """Bound a JSON schema.

    Raises:
        InvalidRequest: it is too long or too deep.
    """
    length = len(json_text(schema, path))
    if length > MAX_SCHEMA_CHARS:
        raise InvalidRequest(
            f"{path} must have at most {MAX_SCHEMA_CHARS} characters, but has {length}", param=path
        )


def _to_tool(tool: ToolDefinition, path: str) -> Tool:
    if tool.type != "function":
        raise UnsupportedFeature(
            f"{path}.type is {tool.type!r}, but this server knows function tools only", param=f"{path}.type"
        )
    if tool.function is None:
        raise InvalidRequest(f"Missing required field: {path}.function", param=f"{path}.function")
    return tool.function.to_tool(f"{path}.function")
