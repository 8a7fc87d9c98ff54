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
from kolosal.routes.openai.custom_tools import FormatSyntax, FormatText, custom_tool, format_grammar
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
    """Refuse a schema that says what cannot be enforced; otherwise that is passed over."""

    def to_tool(self, path: str) -> Tool:
        """The function as engines know it; `path` is where it stands."""
        param = f"{path}.parameters"
        return to_tool(
            self.name, self.description, self.parameters or {}, param, strict=self.strict, unit=UNIT
        )


class NestedGrammar(RequestBody):
    """`grammar` of a custom tool's format."""

    syntax: FormatSyntax
    definition: FormatText


class NestedFormat(RequestBody):
    """`format` of a custom tool: any text, or a grammar that its input conforms to."""

    type: Literal["text", "grammar"]
    grammar: NestedGrammar | None = None
    """Required for the type `grammar`."""


class CustomDefinition(RequestBody):
    """A tool that takes text in place of arguments."""

    name: OpenAIToolName
    """What the model calls it by."""
    description: ToolDescription | None = None
    """What it does, for the model."""
    format: NestedFormat | None = None
    """What its input looks like; any text unless given."""

    def to_tool(self, path: str) -> Tool:
        """The tool as engines know it; `path` is where it stands."""
        text = None
        if self.format is not None and self.format.type == "grammar":
            where = f"{path}.format.grammar"
            grammar = required(self.format.grammar, where)
            text = format_grammar(grammar.syntax, grammar.definition, f"{where}.definition")
        return custom_tool(self.name, self.description, text)


class ToolDefinition(RequestBody):
    """One of `tools`."""

    type: Annotated[str, Field(max_length=64)] = "function"
    """`function` or `custom`."""
    function: FunctionDefinition | None = None
    custom: CustomDefinition | None = None

    def to_tool(self, path: str) -> Tool:
        """The tool as engines know it; `path` is where it stands."""
        if self.type == "custom":
            return required(self.custom, f"{path}.custom").to_tool(f"{path}.custom")
        return function_tool(self.type, self.function, path, known="function and custom")


Tools: TypeAlias = Annotated[tuple[ToolDefinition, ...], Field(max_length=MAX_TOOLS)]


class NamedFunction(RequestBody):
    """The name of a function."""

    name: OpenAIToolName


class NamedTool(RequestBody):
    """A tool by its name."""

    type: Literal["function", "custom"]
    function: NamedFunction | None = None
    custom: NamedFunction | None = None

    def name(self, path: str) -> str:
        """The name; `path` is where the tool stands."""
        named = self.function if self.type == "function" else self.custom
        return required(named, f"{path}.{self.type}").name


class AllowedTools(RequestBody):
    """`allowed_tools` of a tool choice."""

    mode: Literal["auto", "required"]
    """Whether one of them must be called."""
    tools: Annotated[tuple[NamedTool, ...], Field(min_length=1, max_length=MAX_TOOLS)]
    """The tools that may be called."""


class ChoiceObject(RequestBody):
    """`tool_choice` as an object: one tool that must be called, or some that may be."""

    type: Literal["function", "custom", "allowed_tools"]
    function: NamedFunction | None = None
    custom: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None

    def to_mode(self) -> tuple[ToolMode, tuple[str, ...]]:
        """Whether tools are called, and which may be."""
        if self.type != "allowed_tools":
            named = self.function if self.type == "function" else self.custom
            return ToolMode.REQUIRED, (required(named, f"tool_choice.{self.type}").name,)
        allowed = required(self.allowed_tools, "tool_choice.allowed_tools")
        path = "tool_choice.allowed_tools.tools"
        names = tuple(tool.name(f"{path}.{index}") for index, tool in enumerate(allowed.tools))
        return ToolMode(allowed.mode), names


ToolChoice: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], STRING] | Annotated[ChoiceObject, OBJECT],
    by_kind('"none", "auto", "required" or an object'),
]


def custom_names(tools: tuple[ToolDefinition, ...] | None) -> frozenset[str]:
    """The names of the tools that take text."""
    return frozenset(tool.custom.name for tool in tools or () if tool.type == "custom" and tool.custom)


def to_tool_use(
    tools: tuple[ToolDefinition, ...] | None, choice: ToolChoice | None, *, parallel: bool | None
) -> ToolUse:
    """The tools of a request and how they are to be used."""
    functions = tuple(tool.to_tool(f"tools.{index}") for index, tool in enumerate(tools or ()))
    mode, only = choice.to_mode() if isinstance(choice, ChoiceObject) else (ToolMode(choice or "auto"), ())
    named = isinstance(choice, ChoiceObject) and choice.type != "allowed_tools"
    return tool_use(functions, mode, only, parallel=parallel is not False and not named)


def tool_use(tools: tuple[Tool, ...], mode: ToolMode, only: tuple[str, ...], *, parallel: bool) -> ToolUse:
    """The same from tools as engines know them, for all dialects. A function that is named is called once: `parallel` is false."""
    names = {tool.name for tool in distinct_tools(tools, _name_repeated)}
    for name in only:
        if name not in names:
            raise InvalidRequest(
                f"tool_choice names {name!r}, which is none of the tools", param="tool_choice"
            )
    if mode is ToolMode.REQUIRED and not tools:
        raise InvalidRequest("tool_choice asks for a call, but there are no tools", param="tool_choice")
    return ToolUse(tools, mode, only, parallel)


def function_tool(
    kind: str, function: FunctionDefinition | None, path: str, *, known: str = "function"
) -> Tool:
    """One of `tools`, as engines know it; `path` is where it stands, `known` the types that are."""
    if kind != "function":
        raise UnsupportedFeature(
            f"{path}.type is {kind!r}, but this server knows {known} tools only", param=f"{path}.type"
        )
    return required(function, f"{path}.function").to_tool(f"{path}.function")


def _name_repeated(index: int, name: str) -> InvalidRequest:
    return InvalidRequest(f"tools.{index} has the name {name!r} of an earlier tool", param=f"tools.{index}")
