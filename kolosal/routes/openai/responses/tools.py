"""`tools` and `tool_choice` in the flat shape of the Responses API."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required, unsupported
from kolosal.routes.common.fields import OBJECT, STRING, by_kind
from kolosal.routes.common.tools import ToolDescription, to_tool
from kolosal.routes.openai.grammar import UNIT
from kolosal.routes.openai.responses.input_items import MAX_TYPE_CHARS
from kolosal.routes.openai.tools import OpenAIToolName, check_function, tool_use
from kolosal.schema import MAX_TOOLS, Tool, ToolMode, ToolUse


class ToolInput(RequestBody):
    """One of `tools`: a function. Arguments always conform to `parameters`; see `Tool.strict`."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    name: OpenAIToolName | None = None
    description: ToolDescription | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    allowed_callers: (
        Annotated[tuple[Literal["direct", "programmatic"], ...], Field(min_length=1, max_length=2)] | None
    ) = None
    """Must have `direct`: there are no programs here that could call it."""
    is_async: Annotated[bool | None, Field(alias="async")] = None
    """Must be false."""
    defer_loading: bool | None = None
    """Must be false: there is no search for tools."""

    def to_tool(self, path: str) -> Tool:
        """The function as engines know it; `path` is where it stands."""
        check_function(self.type, path)
        name = required(self.name, f"{path}.name")
        refused = {
            "allowed_callers": self.allowed_callers is not None and "direct" not in self.allowed_callers,
            "async": bool(self.is_async),
            "defer_loading": bool(self.defer_loading),
        }
        for field, asked in refused.items():
            if asked:
                raise unsupported(f"{path}.{field}")
        param = f"{path}.parameters"
        return to_tool(name, self.description, self.parameters or {}, param, strict=self.strict, unit=UNIT)


class NamedToolInput(RequestBody):
    """A function by its name."""

    type: Literal["function"]
    name: OpenAIToolName


class ChoiceInput(RequestBody):
    """`tool_choice` as an object: one function that must be called, or some that may be."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    name: OpenAIToolName | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[tuple[NamedToolInput, ...], Field(min_length=1, max_length=MAX_TOOLS)] | None = None

    def to_mode(self) -> tuple[ToolMode, tuple[str, ...]]:
        """Whether tools are called, and which may be."""
        if self.type == "function":
            return ToolMode.REQUIRED, (required(self.name, "tool_choice.name"),)
        if self.type != "allowed_tools":
            raise UnsupportedFeature(
                f"tool_choice.type is {self.type!r}, but this server knows function and allowed_tools only",
                param="tool_choice.type",
            )
        mode = required(self.mode, "tool_choice.mode")
        return ToolMode(mode), tuple(tool.name for tool in required(self.tools, "tool_choice.tools"))


ToolsInput: TypeAlias = Annotated[tuple[ToolInput, ...], Field(max_length=MAX_TOOLS)]

ToolChoiceInput: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], STRING] | Annotated[ChoiceInput, OBJECT],
    by_kind('"none", "auto", "required" or an object'),
]


def to_tool_use(
    tools: ToolsInput | None, choice: ToolChoiceInput | None, *, parallel: bool | None
) -> ToolUse:
    """The tools of a request and how they are to be used."""
    functions = tuple(tool.to_tool(f"tools.{index}") for index, tool in enumerate(tools or ()))
    mode, only = choice.to_mode() if isinstance(choice, ChoiceInput) else (ToolMode(choice or "auto"), ())
    return tool_use(functions, mode, only, parallel=parallel is not False)
