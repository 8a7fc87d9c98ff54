"""Our own words for tools, for models whose template knows none: the way Hermes writes calls, explained."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kolosal.chat.events import parsed_arguments
from kolosal.schema import Tool, ToolCall, ToolMode, ToolUse


def describe_tools(tool_use: ToolUse) -> str:
    """What the model is told: the tools, and how to call them."""
    lines = [
        "You can call functions. These are available, one JSON object for each:",
        *(json.dumps(function_object(tool), ensure_ascii=False) for tool in tool_use.tools),
        "",
        "To call a function, answer with its name and arguments in this form:",
        "<tool_call>",
        '{"name": "the function\'s name", "arguments": {"an argument\'s name": "its value"}}',
        "</tool_call>",
        "You then get what the function returned, between <tool_response> and </tool_response>.",
    ]
    if not tool_use.parallel:
        lines.append("Call one function at a time.")
    if tool_use.mode is ToolMode.REQUIRED:
        lines.append("Answer with a call now.")
    return "\n".join(lines)


def write_calls(calls: Sequence[ToolCall]) -> str:
    """Calls as the model itself wrote them."""
    return "\n".join(
        f'<tool_call>\n{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments if parsed_arguments(call.arguments) else "{}"}}}\n</tool_call>'
        for call in calls
    )


def write_result(content: str) -> str:
    """What a function returned."""
    return f"<tool_response>\n{content}\n</tool_response>"


def function_object(tool: Tool) -> dict[str, object]:
    """A tool as templates and the OpenAI API have it."""
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}
