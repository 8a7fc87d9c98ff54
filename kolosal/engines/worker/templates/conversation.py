"""A conversation as its chat template wants it: roles, tools, calls and results.

What a template does not know is said in other words: tools in the system turn, and turns that it does not take where they stand in
others, see `arrangement.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kolosal.chat.events import parsed_arguments
from kolosal.chat.formats import SHAPES, SHORT_ID_CHARS, ToolFormat
from kolosal.chat.generic import describe_tools, function_object
from kolosal.engines.worker.templates.arrangement import (
    Step,
    Turns,
    arranged,
    in_plain_words,
    shape_of,
    steps_for,
)
from kolosal.engines.worker.templates.capabilities import Render, TemplateCapabilities, as_parts
from kolosal.engines.worker.templates.special_tokens import END_MARK, SpecialTokenEscaper
from kolosal.schema import ChatPrompt, Message, Tool, ToolCall, ToolMode

_METADATA = re.compile(r"\A(?:x-anthropic-billing-header:[^\n]*\n*)+")

_MAX_SHAPES = 256
"""Shapes of conversations whose arrangement is remembered."""


class Conversation:
    """Builds the variables of renderings with one template."""

    def __init__(
        self,
        tool_format: ToolFormat,
        capabilities: TemplateCapabilities,
        escaper: SpecialTokenEscaper,
        render: Render,
        *,
        keep_client_metadata: bool,
    ) -> None:
        self._format = tool_format
        self._capabilities = capabilities
        self._escaper = escaper
        self._render = render
        self._keep_client_metadata = keep_client_metadata
        self._names: dict[str, str] = {}
        self._steps: dict[tuple[str, bool, bool], tuple[Step, ...]] = {}

    def variables(self, prompt: ChatPrompt) -> dict[str, Any]:
        """What the template is given of a request."""
        tools = prompt.tool_use.tools if prompt.tool_use.mode is not ToolMode.NONE else ()
        unknown = () if self._capabilities.knows_developer else ("developer",)
        messages = [
            replace(message, role="system") if message.role in unknown else message
            for message in prompt.messages
        ]
        if not self._keep_client_metadata:
            messages = _without_client_metadata(messages)
        functions = self._functions(tools)
        if self._format is ToolFormat.GENERIC:
            messages = in_plain_words(messages)
            messages = _with_system(messages, describe_tools(prompt.tool_use)) if tools else messages
            tools = ()
        steps = self._arrangement(messages, bool(tools), continues=prompt.continues)
        variables = self._variables(arranged(messages, steps), tools, continues=prompt.continues)
        return (
            variables
            | functions
            | {"add_generation_prompt": prompt.add_generation_prompt and not prompt.continues}
        )

    def _functions(self, tools: Sequence[Tool]) -> dict[str, Any]:
        """The tools as the templates of older families have them."""
        if not tools or not self._capabilities.knows_functions:
            return {}
        objects = self._escaper.escape_all([function_object(tool) for tool in tools])
        as_text = self._capabilities.functions_as_text
        return {"functions": json.dumps(objects, indent=2, ensure_ascii=False) if as_text else objects}

    def _arrangement(
        self, messages: Sequence[Message], has_tools: bool, *, continues: bool
    ) -> tuple[Step, ...]:
        """How the turns are to be moved and merged so that the template takes them."""
        key = (shape_of(messages), has_tools, continues)
        steps = self._steps.get(key)
        if steps is None:
            if len(self._steps) >= _MAX_SHAPES:
                self._steps.clear()
            tools = (Tool("needle"),) if has_tools else ()

            def try_(conversations: list[Turns]) -> list[str]:
                given = [self._variables(turns, tools, continues=continues) for turns in conversations]
                return [text if isinstance(text, str) else "" for text in self._render(given)]

            steps = self._steps[key] = steps_for(key[0], try_, continues=continues)
        return steps

    def _variables(
        self, messages: Sequence[Message], tools: Sequence[Tool], *, continues: bool
    ) -> dict[str, Any]:
        self._names = {}
        turns = [self._turn(message) for message in messages]
        if continues:
            turns[-1]["content"] = (turns[-1]["content"] or "") + END_MARK
        if self._capabilities.wants_parts:
            turns = [turn | {"content": as_parts(turn["content"] or "")} for turn in turns]
        variables: dict[str, Any] = {"messages": turns, "add_generation_prompt": not continues}
        if tools:
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
        parsed = parsed_arguments(call.arguments)
        arguments = parsed or {} if as_object else call.arguments if parsed else "{}"
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


def _without_client_metadata(messages: list[Message]) -> list[Message]:
    """The conversation without the line that Claude Code begins its first system text with. It has a number that changes with every
    request, so that no two prompts would begin alike."""
    if not messages or messages[0].role not in ("system", "developer"):
        return messages
    first = messages[0]
    told = _METADATA.sub("", first.content)
    if told == first.content:
        return messages
    return [replace(first, content=told), *messages[1:]] if told else messages[1:]


def _with_system(messages: list[Message], text: str) -> list[Message]:
    """The conversation with text added to its first system turn, or with a turn for it."""
    if messages and messages[0].role in ("system", "developer"):
        content = "\n\n".join(part for part in (messages[0].content, text) if part)
        return [replace(messages[0], content=content), *messages[1:]]
    return [Message("system", text), *messages]
