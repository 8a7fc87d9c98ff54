"""A conversation as its chat template wants it: roles, tools, calls and results.

What a template does not know is said in other words: tools in the system turn, a system turn in the user's first one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from kolosal.chat.formats import SHAPES, SHORT_ID_CHARS, ToolFormat
from kolosal.chat.generic import describe_tools, function_object, write_calls, write_result
from kolosal.engines.worker.templates.capabilities import TemplateCapabilities
from kolosal.engines.worker.templates.special_tokens import END_MARK, SpecialTokenEscaper
from kolosal.schema import ChatPrompt, Message, ToolCall, ToolMode


class Conversation:
    """Builds the variables of one rendering."""

    def __init__(
        self, tool_format: ToolFormat, capabilities: TemplateCapabilities, escaper: SpecialTokenEscaper
    ) -> None:
        self._format = tool_format
        self._capabilities = capabilities
        self._escaper = escaper
        self._names: dict[str, str] = {}

    def variables(self, prompt: ChatPrompt) -> dict[str, Any]:
        """What the template is given of a request."""
        tools = prompt.tool_use.tools if prompt.tool_use.mode is not ToolMode.NONE else ()
        unknown = () if self._capabilities.knows_developer else ("developer",)
        messages = [
            replace(message, role="system") if message.role in unknown else message
            for message in prompt.messages
        ]
        if self._format is ToolFormat.GENERIC:
            messages = _in_plain_words(messages, describe_tools(prompt.tool_use) if tools else "")
        if any(message.role == "system" for message in messages) and not self._capabilities.shows_system:
            messages = _without_system(messages)
        turns = [self._turn(message) for message in messages]
        if prompt.continues:
            turns[-1]["content"] = (turns[-1]["content"] or "") + END_MARK
        variables: dict[str, Any] = {"messages": turns, "add_generation_prompt": not prompt.continues}
        if tools and self._format is not ToolFormat.GENERIC:
            objects = [{"type": "function", "function": function_object(tool)} for tool in tools]
            variables["tools"] = self._escaper.escape_all(objects)
        return variables

    def _turn(self, message: Message) -> dict[str, Any]:
        escape = self._escaper.escape
        turn: dict[str, Any] = {"role": escape(message.role), "content": escape(message.content)}
        if message.name is not None:
            turn["name"] = escape(message.name)
        if message.thinking is not None:
            self._add_thinking(turn, message, message.thinking)
        if message.tool_calls:
            style = self._capabilities.call_style
            turn["tool_calls"] = [
                self._call(call, as_object=style.object_arguments) for call in message.tool_calls
            ]
            if not message.content and style.null_content:
                turn["content"] = None
        if message.tool_call_id is not None:
            turn["tool_call_id"] = escape(self._id(message.tool_call_id))
            turn.setdefault("name", escape(self._names.get(message.tool_call_id, "")))
        return turn

    def _add_thinking(self, turn: dict[str, Any], message: Message, thinking: str) -> None:
        if self._format is not ToolFormat.GPT_OSS:
            turn["reasoning_content"] = self._escaper.escape(thinking)
        elif message.tool_calls and not message.content:  # it refuses both beside calls
            turn["thinking"] = self._escaper.escape(thinking)

    def _call(self, call: ToolCall, *, as_object: bool) -> dict[str, Any]:
        self._names[call.id] = call.name
        arguments = _parsed(call.arguments) if as_object else call.arguments
        function = {"name": call.name, "arguments": arguments}
        return {
            "id": self._escaper.escape(self._id(call.id)),
            "type": "function",
            "function": self._escaper.escape_all(function),
        }

    def _id(self, call_id: str) -> str:
        """A call's id as the template takes it: Mistral's refuse all but nine letters and digits."""
        shape = SHAPES.get(self._format)
        short = shape is not None and shape.short_ids
        if not short or (len(call_id) == SHORT_ID_CHARS and call_id.isalnum()):
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:SHORT_ID_CHARS]


def _parsed(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _in_plain_words(messages: list[Message], tools: str) -> list[Message]:
    """Calls, results and tools as text, for a template that knows none of them."""
    turns: list[Message] = []
    after_result = False
    for message in messages:
        if message.tool_calls:
            content = "\n".join(part for part in (message.content, write_calls(message.tool_calls)) if part)
            turns.append(replace(message, content=content, tool_calls=()))
        elif message.role == "tool" or (message.role == "user" and after_result):
            content = write_result(message.content) if message.role == "tool" else message.content
            if after_result:  # one turn, since many templates want users and assistants to alternate
                turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n{content}")
            else:
                turns.append(Message("user", content))
        else:
            turns.append(message)
        after_result = message.role == "tool"
    return _with_system(turns, tools) if tools else turns


def _with_system(messages: list[Message], text: str) -> list[Message]:
    """The conversation with text added to its first system turn, or with a turn for it."""
    if messages and messages[0].role in ("system", "developer"):
        content = "\n\n".join(part for part in (messages[0].content, text) if part)
        return [replace(messages[0], content=content), *messages[1:]]
    return [Message("system", text), *messages]


def _without_system(messages: list[Message]) -> list[Message]:
    """System turns as text of the user, before the next thing the user says."""
    turns: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif message.role == "user" and waiting:
            turns.append(replace(message, content="\n\n".join([*waiting, message.content])))
            waiting = []
        else:
            turns.append(message)
    if waiting:
        turns.append(Message("user", "\n\n".join(waiting)))
    return turns
