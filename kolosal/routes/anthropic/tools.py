"""`tools` and `tool_choice` → how an engine is to use tools. Pure.

https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.http.nesting import json_text
from kolosal.routes.common.body import required
from kolosal.routes.common.tools import distinct_tools, to_tool
from kolosal.schema import MAX_TOOL_NAME_CHARS, MAX_TOOLS, Tool, ToolMode, ToolName, ToolUse

MAX_EXAMPLES = 20
"""Examples of one tool's input."""

_MODES = {"auto": ToolMode.AUTO, "any": ToolMode.REQUIRED, "tool": ToolMode.REQUIRED, "none": ToolMode.NONE}


class InputTool(RequestBody):
    """A tool of the client's own. Anthropic's ready-made ones, which have another `type`, are refused."""

    type: str | None = None
    name: ToolName | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    input_examples: Annotated[tuple[dict[str, Any], ...], Field(max_length=MAX_EXAMPLES)] | None = None
    allowed_callers: Annotated[tuple[str, ...], Field(max_length=MAX_TOOLS)] | None = None
    strict: bool | None = None
    """Refuse a schema with keywords that cannot be enforced; otherwise those are passed over."""

    def to_tool(self, path: str) -> Tool:
        """The tool as engines know it; `path` is where it stands in the request."""
        if self.type not in (None, "custom"):
            raise UnsupportedFeature(
                f"{path}.type: tools of the type {self.type[:60]!r} are not supported by this server, only 'custom'",
                param=f"{path}.type",
            )
        if self.allowed_callers is not None and "direct" not in self.allowed_callers:
            raise UnsupportedFeature(
                f"{path}.allowed_callers must contain 'direct': this server has no code that could call tools",
                param=f"{path}.allowed_callers",
            )
        name, param = required(self.name, f"{path}.name"), f"{path}.input_schema"
        description = self._description(path)
        schema = required(self.input_schema, param)
        return to_tool(name, description, {"type": "object", **schema}, param, strict=self.strict)

    def _description(self, path: str) -> str:
        lines = [] if not self.description else [self.description]
        for index, example in enumerate(self.input_examples or ()):
            lines.append(f"Example input: {json_text(example, f'{path}.input_examples.{index}')}")
        return "\n".join(lines)


class ToolChoice(RequestBody):
    """`tool_choice`."""

    type: Literal["auto", "any", "tool", "none"]
    name: Annotated[str, Field(max_length=MAX_TOOL_NAME_CHARS)] | None = None
    disable_parallel_tool_use: bool | None = None


InputTools = Annotated[tuple[InputTool, ...], Field(max_length=MAX_TOOLS)]


def to_tool_use(tools: Sequence[InputTool], choice: ToolChoice | None) -> ToolUse:
    """The tools of a request and how they are to be used."""
    known = distinct_tools([tool.to_tool(f"tools.{index}") for index, tool in enumerate(tools)])
    names = {tool.name for tool in known}
    if choice is None:
        return ToolUse(known)
    return ToolUse(
        known,
        _mode(choice, names),
        only=(choice.name,) if choice.type == "tool" and choice.name is not None else (),
        parallel=not choice.disable_parallel_tool_use and choice.type != "tool",
    )


def _mode(choice: ToolChoice, names: set[str]) -> ToolMode:
    if choice.type == "tool" and choice.name not in names:
        name = "nothing" if choice.name is None else repr(choice.name[:60])
        raise InvalidRequest(
            f"tool_choice.name must be the name of one of the tools, not {name}", param="tool_choice.name"
        )
    if choice.type == "any" and not names:
        raise InvalidRequest(
            "tool_choice.type 'any' needs tools, but none were given", param="tool_choice.type"
        )
    return _MODES[choice.type]
