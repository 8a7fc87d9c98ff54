"""Turns and tools as Ollama's clients send them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import NeutralValues, OpenBody
from kolosal.routes.common.history import (
    MAX_ARGUMENT_CHARS,
    ArgumentsObject,
    LowerCase,
    current_turn,
    placeholder,
    with_paired_calls,
)
from kolosal.routes.common.json_schema import bounded_json
from kolosal.routes.common.tools import ToolCallId, check_caller
from kolosal.routes.openai.messages import MAX_MESSAGES
from kolosal.routes.openai.tools import FunctionDefinition, function_tool, tool_use
from kolosal.schema import MAX_TOOL_NAME_CHARS, MAX_TOOLS, Message, ToolCall, ToolMode, ToolName, ToolUse


class OllamaInputFunction(RequestBody):
    """The function of a call."""

    name: ToolName
    """The function's name."""
    arguments: ArgumentsObject = Field(default_factory=dict)
    """The arguments, an object; all else is as good as `{}`."""


class OllamaInputCall(RequestBody):
    """One call that an assistant's turn made."""

    id: ToolCallId | None = None
    """What the turn with its result may name as `tool_call_id`."""
    function: OllamaInputFunction


class OllamaInputMessage(OpenBody):
    """One turn."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"images": ([],)}

    role: Annotated[Literal["system", "user", "assistant", "tool"], LowerCase]
    """Who speaks."""
    content: str | None = None
    """The text."""
    thinking: str | None = None
    """What an assistant's turn thought before it answered."""
    tool_calls: Annotated[tuple[OllamaInputCall, ...], Field(max_length=MAX_TOOLS)] | None = None
    """Calls an assistant's turn made."""
    tool_name: Annotated[str, Field(max_length=MAX_TOOL_NAME_CHARS)] | None = None
    """The tool whose result a tool's turn holds."""
    tool_call_id: ToolCallId | None = None
    """The call that a tool's turn answers."""


Messages: TypeAlias = Annotated[tuple[OllamaInputMessage, ...], Field(max_length=MAX_MESSAGES)]


class OllamaTool(RequestBody):
    """One of `tools`."""

    type: Annotated[str, Field(max_length=64)] | None = None
    """`function`, also when left out."""
    function: FunctionDefinition | None = None
    """What the model may call."""


Tools: TypeAlias = Annotated[tuple[OllamaTool, ...], Field(max_length=MAX_TOOLS)]


def to_tool_use(tools: Sequence[OllamaTool]) -> ToolUse:
    """The tools of a request, any of which may be called, in any number."""
    functions = tuple(
        function_tool(tool.type or "function", tool.function, f"tools.{index}")
        for index, tool in enumerate(tools)
    )
    return tool_use(functions, ToolMode.AUTO, (), parallel=True)


def to_messages(messages: Sequence[OllamaInputMessage]) -> tuple[Message, ...]:
    """The conversation as engines know it."""
    current = current_turn([message.role for message in messages])
    return with_paired_calls(
        _turn(message, f"messages.{index}", earlier=index < current) for index, message in enumerate(messages)
    )


def _turn(message: OllamaInputMessage, path: str, *, earlier: bool) -> Message:
    """One turn; `earlier`: one that was answered."""
    images = (message.model_extra or {}).get("images")
    if earlier and isinstance(images, list):
        shown = [placeholder("image")] * len(images)
        content = "\n".join(filter(None, (message.content, *shown)))
    else:
        message.refuse_unsupported(f"{path}.")
        content = message.content or ""
    if message.role == "tool":
        return Message("tool", content, message.tool_name or None, tool_call_id=message.tool_call_id or None)
    check_caller(message.role, message.tool_calls, path)
    calls = tuple(
        _call(call, f"{path}.tool_calls.{index}") for index, call in enumerate(message.tool_calls or ())
    )
    return Message(message.role, content, tool_calls=calls, thinking=message.thinking or None)


def _call(call: OllamaInputCall, path: str) -> ToolCall:
    param = f"{path}.function.arguments"
    arguments = bounded_json(call.function.arguments, param, MAX_ARGUMENT_CHARS)
    return ToolCall(call.id or "", call.function.name, arguments)
