"""Turns and tools as Ollama's clients send them. Pure.

Ollama's calls often have no ids: a result names its tool only, or nothing, and belongs to the first call that waits for one.
Chat templates want ids, so calls without get one by their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import NeutralValues, OpenBody
from kolosal.routes.common.json_schema import bounded_json
from kolosal.routes.common.tools import ToolCallId, check_caller
from kolosal.routes.openai.messages import MAX_ARGUMENT_CHARS, MAX_MESSAGES
from kolosal.routes.openai.tools import FunctionDefinition, function_tool, tool_use
from kolosal.schema import MAX_TOOL_NAME_CHARS, MAX_TOOLS, Message, ToolCall, ToolMode, ToolName, ToolUse


class OllamaInputFunction(RequestBody):
    """The function of a call."""

    name: ToolName
    """The function's name."""
    arguments: dict[str, Any] | None = None
    """The arguments, an object."""


class OllamaInputCall(RequestBody):
    """One call that an assistant's turn made."""

    id: ToolCallId | None = None
    """What the turn with its result may name as `tool_call_id`."""
    function: OllamaInputFunction


class OllamaInputMessage(OpenBody):
    """One turn."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"images": ([],)}

    role: Literal["system", "user", "assistant", "tool"]
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
    waiting: list[ToolCall] = []
    return tuple(_turn(message, f"messages.{index}", waiting) for index, message in enumerate(messages))


def _turn(message: OllamaInputMessage, path: str, waiting: list[ToolCall]) -> Message:
    """One turn; `waiting` holds the calls so far that have no result yet."""
    message.refuse_unsupported(f"{path}.")
    content = message.content or ""
    if message.role == "tool":
        call = _answered(message, waiting)
        name = message.tool_name or (call.name if call is not None else None)
        return Message(
            "tool", content, name, tool_call_id=call.id if call is not None else message.tool_call_id
        )
    check_caller(message.role, message.tool_calls, path)
    calls = tuple(
        _call(call, f"{path}.tool_calls.{index}") for index, call in enumerate(message.tool_calls or ())
    )
    waiting.extend(calls)
    return Message(message.role, content, tool_calls=calls, thinking=message.thinking or None)


def _call(call: OllamaInputCall, path: str) -> ToolCall:
    param = f"{path}.function.arguments"
    arguments = bounded_json(call.function.arguments or {}, param, MAX_ARGUMENT_CHARS)
    return ToolCall(call.id or f"call_{path.replace('.', '_')}", call.function.name, arguments)


def _answered(message: OllamaInputMessage, waiting: list[ToolCall]) -> ToolCall | None:
    """The call that a result belongs to: by its id, else the first of its tool, else the first of all."""
    if message.tool_call_id:
        found = next((call for call in waiting if call.id == message.tool_call_id), None)
    else:
        named = (call for call in waiting if call.name == message.tool_name)
        found = next(named, waiting[0] if waiting and not message.tool_name else None)
    if found is not None:
        waiting.remove(found)
    return found
