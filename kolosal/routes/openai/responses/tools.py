"""`tools` and `tool_choice` in the flat shape of the Responses API."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.fields import OBJECT, STRING, kinds
from kolosal.routes.openai.responses.parts import MAX_TYPE_CHARS
from kolosal.routes.openai.tools import MAX_DESCRIPTION_CHARS, ToolName, check_schema_size, tool_use
from kolosal.schema import MAX_TOOLS, Tool, ToolMode, ToolUse

_NESTED = re.compile(r"\b(tools\.\d+\.)function\.")


class ToolInput(RequestBody):
    """One of `tools`: a function. Arguments always conform to `parameters`; see `Tool.strict`."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    name: ToolName | None = None
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)] | None = None
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
        """The function as engines know it; `path` is where it stands.

        Raises:
            InvalidRequest: it has no name, or its parameters are too long.
            UnsupportedFeature: it is no function, or asks for what this daemon does not have.
        """
        if self.type != "function":
            raise UnsupportedFeature(
                f"{path}.type is {self.type!r}, but this server knows function tools only",
                param=f"{path}.type",
            )
        if self.name is None:
            raise InvalidRequest(f"Missing required field: {path}.name", param=f"{path}.name")
        refused = {
            "allowed_callers": self.allowed_callers is not None and "direct" not in self.allowed_callers,
            "async": bool(self.is_async),
            "defer_loading": bool(self.defer_loading),
        }
        for name, asked in refused.items():
            if asked:
                raise UnsupportedFeature(
                    f"{path}.{name} is not supported by this server", param=f"{path}.{name}"
                )
        parameters = self.parameters or {}
        check_schema_size(parameters, f"{path}.parameters")
        return Tool(self.name, self.description or "", parameters, strict=bool(self.strict))


class NamedToolInput(RequestBody):
    """A function by its name."""

    type: Literal["function"]
    name: ToolName


class ChoiceInput(RequestBody):
    """`tool_choice` as an object: one function that must be called, or some that may be."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    name: ToolName | None = None
    mode: Literal["auto", "required"] | None = None
    tools: Annotated[tuple[NamedToolInput, ...], Field(min_length=1, max_length=MAX_TOOLS)] | None = None

    def to_mode(self) -> tuple[ToolMode, tuple[str, ...]]:
        """Whether tools are called, and which may be.

        Raises:
            InvalidRequest: a field that the type asks for is missing.
            UnsupportedFeature: the type is one of OpenAI's own tools.
        """
        if self.type == "function":
            if self.name is None:
                raise InvalidRequest("Missing required field: tool_choice.name", param="tool_choice.name")
            return ToolMode.REQUIRED, (self.name,)
        if self.type != "allowed_tools":
            raise UnsupportedFeature(
                f"tool_choice.type is {self.type!r}, but this server knows function and allowed_tools only",
                param="tool_choice.type",
            )
        for field, value in (("mode", self.mode), ("tools", self.tools)):
            if value is None:
                raise InvalidRequest(
                    f"Missing required field: tool_choice.{field}", param=f"tool_choice.{field}"
                )
        return ToolMode(self.mode or "auto"), tuple(tool.name for tool in self.tools or ())


ToolsInput: TypeAlias = Annotated[tuple[ToolInput, ...], Field(max_length=MAX_TOOLS)]

ToolChoiceInput: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], STRING] | Annotated[ChoiceInput, OBJECT],
    kinds('"none", "auto", "required" or an object'),
]


def in_flat_shape(error: InvalidRequest) -> InvalidRequest:
    """An engine's complaint about a tool, which names the field as chat completions have it."""
    param = None if error.param is None else _NESTED.sub(r"\1", error.param)
    return InvalidRequest(_NESTED.sub(r"\1", error.message), param=param, code=error.code)


def to_tool_use(
    tools: ToolsInput | None, choice: ToolChoiceInput | None, *, parallel: bool | None
) -> ToolUse:
    """The tools of a request and how they are to be used.

    Raises:
        InvalidRequest: a tool is not complete, two have the same name, or the choice names none of them.
        UnsupportedFeature: a tool or the choice is none of a function.
    """
    offered = tuple(tool.to_tool(f"tools.{index}") for index, tool in enumerate(tools or ()))
    mode, only = choice.to_mode() if isinstance(choice, ChoiceInput) else (ToolMode(choice or "auto"), ())
    return tool_use(offered, mode, only, parallel=parallel is not False)
