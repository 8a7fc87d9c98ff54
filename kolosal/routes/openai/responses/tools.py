"""`tools` and `tool_choice` of the Responses API: functions and custom tools, alone or in namespaces.

Engines know functions by one name. Those of a namespace get a longer one, and `OfferedTools` names them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, JsonValue

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required, unsupported
from kolosal.routes.common.fields import OBJECT, STRING, by_kind
from kolosal.routes.common.tools import ToolDescription, to_tool
from kolosal.routes.openai.custom_tools import CustomFormat, custom_tool
from kolosal.routes.openai.grammar import UNIT
from kolosal.routes.openai.responses.items import MAX_TYPE_CHARS, flat_name
from kolosal.routes.openai.tools import OpenAIToolName, tool_use
from kolosal.schema import MAX_TOOL_NAME_CHARS, MAX_TOOLS, Tool, ToolMode, ToolUse

LEFT_OUT = frozenset(
    {
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)
"""OpenAI's own tools: those that its servers run, and those whose calls have a form of their own. The model does not hear of them, but
for a `tool_search` that the client executes."""

ToolType: TypeAlias = Annotated[str, Field(max_length=MAX_TYPE_CHARS)]


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """One tool that the model may call, and how the client knows it."""

    tool: Tool
    name: str
    path: str
    """Where it stands in the request."""
    namespace: str | None = None
    kind: Literal["function", "custom", "tool_search"] = "function"


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """All of a request's."""

    tools: tuple[OfferedTool, ...] = ()
    by_name: Mapping[str, OfferedTool] = field(init=False)
    """By what the model calls them."""

    def __post_init__(self) -> None:
        """Index the tools."""
        object.__setattr__(self, "by_name", {each.tool.name: each for each in self.tools})

    def named(self, name: str, namespace: str | None, *, custom: bool) -> str:
        """What the model knows a tool by, of which a choice says this.

        Raises:
            InvalidRequest: there is no such tool.
        """
        for each in self.tools:
            known = (each.name, each.tool.name) if namespace is None else (each.name,)
            if name in known and namespace in (None, each.namespace) and (each.kind == "custom") == custom:
                return each.tool.name
        raise InvalidRequest(f"tool_choice names {name!r}, which is none of the tools", param="tool_choice")


class MemberInput(RequestBody):
    """A function or a custom tool. Arguments always conform to `parameters`, inputs to `format`; see `Tool.strict`."""

    type: ToolType
    name: OpenAIToolName | None = None
    description: ToolDescription | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: CustomFormat | None = None
    """Of a custom tool: what its input looks like; any text unless given."""
    allowed_callers: (
        Annotated[tuple[Literal["direct", "programmatic"], ...], Field(min_length=1, max_length=2)] | None
    ) = None
    """Must have `direct`: there are no programs here that could call it."""
    is_async: Annotated[bool | None, Field(alias="async")] = None
    """Must be false."""
    defer_loading: bool | None = None
    """Changes nothing: the model sees it at once."""

    @property
    def left_out(self) -> bool:
        """Whether the model does not hear of it."""
        return self.type in LEFT_OUT

    def offered(self, path: str, namespace: str | None = None) -> OfferedTool:
        """The tool as engines know it; `path` is where it stands."""
        if self.type not in ("function", "custom"):
            raise UnsupportedFeature(
                f"{path}.type is {self.type!r}, but this server knows function, custom and namespace,"
                " and leaves out OpenAI's own tools",
                param=f"{path}.type",
            )
        name = required(self.name, f"{path}.name")
        if self.allowed_callers is not None and "direct" not in self.allowed_callers:
            raise unsupported(f"{path}.allowed_callers")
        if self.is_async:
            raise unsupported(f"{path}.async")
        known_as = flat_name(name, namespace)
        if len(known_as) > MAX_TOOL_NAME_CHARS:
            raise InvalidRequest(
                f"{path}.name must have at most {MAX_TOOL_NAME_CHARS} characters with its namespace,"
                f" not {len(known_as)}",
                param=f"{path}.name",
            )
        if self.type == "custom":
            text = None if self.format is None else self.format.to_grammar(f"{path}.format")
            tool = custom_tool(known_as, self.description, text)
            return OfferedTool(tool, name, path, namespace, "custom")
        schema, param = self.parameters or {}, f"{path}.parameters"
        tool = to_tool(known_as, self.description, schema, param, strict=self.strict, unit=UNIT)
        return OfferedTool(tool, name, path, namespace)

    def echo(self) -> dict[str, JsonValue]:
        """The tool as the response has it."""
        if self.type == "custom":
            form = self.format or CustomFormat(type="text")
            return {
                "type": "custom",
                "name": self.name,
                "description": self.description,
                "format": form.model_dump(exclude_none=True),
            }
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict is not False,
        }


class ToolInput(MemberInput):
    """One of `tools`: a function, a custom tool or a namespace of such. OpenAI's own tools are left out."""

    tools: Annotated[tuple[MemberInput, ...], Field(max_length=MAX_TOOLS)] | None = None
    """Of a namespace: its tools."""
    execution: Literal["server", "client"] | None = None
    """Of `tool_search`: who searches."""

    @property
    def left_out(self) -> bool:
        """Whether the model does not hear of it."""
        return self.type in LEFT_OUT and not self._searches

    @property
    def _searches(self) -> bool:
        return self.type == "tool_search" and self.execution == "client"

    def all_offered(self, path: str) -> Iterator[OfferedTool]:
        """The tools that this is; `path` is where it stands."""
        if self.type == "namespace":
            name = required(self.name, f"{path}.name")
            for index, member in enumerate(required(self.tools, f"{path}.tools")):
                if not member.left_out:
                    yield member.offered(f"{path}.tools.{index}", name)
        elif self._searches:
            param = f"{path}.parameters"
            tool = to_tool(
                self.type, self.description, self.parameters or {}, param, strict=self.strict, unit=UNIT
            )
            yield OfferedTool(tool, self.type, path, kind="tool_search")
        elif not self.left_out:
            yield self.offered(path)

    def echo(self) -> dict[str, JsonValue]:
        """The tool as the response has it."""
        if self._searches:
            return self.model_dump(include={"type", "execution", "description", "parameters"})
        if self.type != "namespace":
            return MemberInput.echo(self)
        members: list[JsonValue] = [member.echo() for member in self.tools or () if not member.left_out]
        return {
            "type": "namespace",
            "name": self.name,
            "description": self.description,
            "tools": members,
        }


class NamedToolInput(RequestBody):
    """A tool by its name, or a whole namespace."""

    type: ToolType
    name: OpenAIToolName | None = None
    namespace: OpenAIToolName | None = None

    def names(self, offered: OfferedTools, path: str) -> Iterator[str]:
        """What the model knows the tools by; none of those that are left out."""
        if self.type in LEFT_OUT:
            return
        name = required(self.name, f"{path}.name")
        if self.type == "namespace":
            yield from (each.tool.name for each in offered.tools if each.namespace == name)
        else:
            yield offered.named(name, self.namespace, custom=_is_custom(self.type, f"{path}.type"))


class ChoiceInput(NamedToolInput):
    """`tool_choice` as an object: one tool that must be called, or some that may be."""

    mode: Literal["auto", "required"] | None = None
    tools: Annotated[tuple[NamedToolInput, ...], Field(min_length=1, max_length=MAX_TOOLS)] | None = None

    def to_mode(self, offered: OfferedTools) -> tuple[ToolMode, tuple[str, ...]]:
        """Whether tools are called, and which may be."""
        if self.type != "allowed_tools":
            custom = _is_custom(self.type, "tool_choice.type")
            name = required(self.name, "tool_choice.name")
            return ToolMode.REQUIRED, (offered.named(name, self.namespace, custom=custom),)
        mode = ToolMode(required(self.mode, "tool_choice.mode"))
        allowed = [
            name
            for index, tool in enumerate(required(self.tools, "tool_choice.tools"))
            for name in tool.names(offered, f"tool_choice.tools.{index}")
        ]
        if allowed:
            return mode, tuple(allowed)
        if mode is ToolMode.REQUIRED:
            raise InvalidRequest(
                "tool_choice asks for a call, but this server has none of its tools",
                param="tool_choice.tools",
            )
        return ToolMode.NONE, ()


def _is_custom(kind: str, path: str) -> bool:
    if kind not in ("function", "custom"):
        raise UnsupportedFeature(
            f"{path} is {kind!r}, but the tools that this server can have called are function and custom",
            param=path,
        )
    return kind == "custom"


ToolsInput: TypeAlias = Annotated[tuple[ToolInput, ...], Field(max_length=MAX_TOOLS)]

ToolChoiceInput: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], STRING] | Annotated[ChoiceInput, OBJECT],
    by_kind('"none", "auto", "required" or an object'),
]


def offered_tools(tools: ToolsInput | None, more: Iterable[tuple[str, ToolInput]] = ()) -> OfferedTools:
    """The tools that the model hears of, each with a name of its own. Of `more`, which items gave, the first of a name is taken."""
    found: dict[str, OfferedTool] = {}
    for index, tool in enumerate(tools or ()):
        for each in tool.all_offered(f"tools.{index}"):
            name = each.tool.name
            if name in found:
                raise InvalidRequest(f"{each.path} has the name {name!r} of an earlier tool", param=each.path)
            found[name] = each
    for path, tool in more:
        for each in tool.all_offered(path):
            found.setdefault(each.tool.name, each)
    if len(found) > MAX_TOOLS:
        raise InvalidRequest(
            f"tools must have at most {MAX_TOOLS} tools, those of namespaces included, not {len(found)}",
            param="tools",
        )
    return OfferedTools(tuple(found.values()))


def to_tool_use(offered: OfferedTools, choice: ToolChoiceInput | None, *, parallel: bool | None) -> ToolUse:
    """How the tools of a request are to be used."""
    mode, only = (
        choice.to_mode(offered) if isinstance(choice, ChoiceInput) else (ToolMode(choice or "auto"), ())
    )
    tools = tuple(each.tool for each in offered.tools)
    named = isinstance(choice, ChoiceInput) and choice.type != "allowed_tools"
    return tool_use(tools, mode, only, parallel=parallel is not False and not named)
