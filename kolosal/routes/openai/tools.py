"""`tools` and `tool_choice` of chat completions, which Ollama and the Responses API build on.

https://platform.openai.com/docs/guides/function-calling
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required
from kolosal.routes.common.fields import OBJECT, STRING, by_kind
from kolosal.routes.common.tools import ToolDescription, distinct_tools, to_tool
from kolosal.routes.openai.grammar import UNIT
from kolosal.schema import MAX_TOOLS, Tool, ToolMode, ToolName, ToolUse

OpenAIToolName: TypeAlias = Annotated[ToolName, Field(pattern=r"^[A-Za-z0-9_.:/-]+$")]
"""Letters, digits and `_ . : / -`: more than OpenAI allows, as tools of other systems have such names."""


class FunctionDefinition(RequestBody):
    """A function a model may call. Arguments always conform to `parameters`; see `Tool.strict`."""

    name: OpenAIToolName
    """What the model calls it by."""
    description: ToolDescription | None = None
    """What it does, for the model."""
    parameters: dict[str, Any] | None = None
    """JSON schema of the arguments, an object; without it any object."""
    strict: bool | None = None
    """Makes no difference: arguments always conform."""

    def to_tool(self, path: str) -> Tool:
        """The function as engines know it; `path` is where it stands."""
        param = f"{path}.parameters"
        return to_tool(
            self.name, self.description, self.parameters or {}, param, strict=self.strict, unit=UNIT
        )


class ToolDefinition(RequestBody):
    """One of `tools`."""

    type: Annotated[str, Field(max_length=64)]
    """Must be `function`."""
    function: FunctionDefinition | None = None


Tools: TypeAlias = Annotated[tuple[ToolDefinition, ...], Field(max_length=MAX_TOOLS)]


class NamedFunction(RequestBody):
    """The name of a function."""

    name: OpenAIToolName


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
        """Whether tools are called, and which may be."""
        if self.type == "function":
            return ToolMode.REQUIRED, (required(self.function, "tool_choice.function").name,)
        allowed = required(self.allowed_tools, "tool_choice.allowed_tools")
        return ToolMode(allowed.mode), tuple(tool.function.name for tool in allowed.tools)


ToolChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], STRING] | Annotated[ChoiceObject, OBJECT],
    by_kind('"none", "auto", "required" or an object'),
]


def to_tool_use(
    tools: tuple[ToolDefinition, ...] | None, choice: ToolChoice | None, *, parallel: bool | None
) -> ToolUse:
    """The tools of a request and how they are to be used."""
    functions = tuple(
        function_tool(tool.type, tool.function, f"tools.{index}") for index, tool in enumerate(tools or ())
    )
    mode, only = choice.to_mode() if isinstance(choice, ChoiceObject) else (ToolMode(choice or "auto"), ())
    return tool_use(functions, mode, only, parallel=parallel is not False)


def tool_use(tools: tuple[Tool, ...], mode: ToolMode, only: tuple[str, ...], *, parallel: bool) -> ToolUse:
    """The same from tools as engines know them, for all dialects."""
    names = {tool.name for tool in distinct_tools(tools, _name_repeated)}
    for name in only:
        if name not in names:
            raise InvalidRequest(
                f"tool_choice names {name!r}, which is none of the tools", param="tool_choice"
            )
    if mode is ToolMode.REQUIRED and not tools:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools", param="tool_choice")
    return ToolUse(tools, mode, only, parallel)


def function_tool(kind: str, function: FunctionDefinition | None, path: str) -> Tool:
    """One of `tools`, as engines know it; `path` is where it stands."""
    check_function(kind, path)
    return required(function, f"{path}.function").to_tool(f"{path}.function")


def check_function(kind: str, path: str) -> None:
    """Refuse OpenAI's own tools."""
    if kind != "function":
        raise UnsupportedFeature(
            f"{path}.type is {kind!r}, but this server knows function tools only", param=f"{path}.type"
        )


def _name_repeated(index: int, name: str) -> InvalidRequest:
    return InvalidRequest(f"tools.{index} has the name {name!r} of an earlier tool", param=f"tools.{index}")
