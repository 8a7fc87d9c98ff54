"""The turns of a chat as OpenAI clients send them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import NeutralValues, OpenBody, required
from kolosal.routes.common.fields import ARRAY, STRING, by_kind
from kolosal.routes.common.history import (
    MAX_ARGUMENT_CHARS,
    ArgumentsText,
    LowerCase,
    current_turn,
    placeholder,
    with_paired_calls,
)
from kolosal.routes.common.tools import ToolCallId, check_caller
from kolosal.routes.openai.custom_tools import arguments_of
from kolosal.schema import MAX_TOOLS, Message, ToolCall, ToolName

MAX_MESSAGES = 16_384
"""Turns of one chat."""

MAX_PARTS = 1024
"""Parts of one turn's content."""


class ContentPart(RequestBody):
    """One part of a message's content: text, or the words of a refusal."""

    type: Annotated[str, Field(max_length=64)] = "text"
    """`text`, or `refusal` in an assistant's turn. Images and the like may stand in earlier turns, where a note takes their place."""
    text: str | None = None
    """The text."""
    refusal: str | None = None
    """The text of a refusal."""

    def to_text(self, path: str, *, earlier: bool) -> str:
        """What the part says; `earlier`: in a turn that was answered."""
        if self.type not in ("text", "refusal"):
            if earlier and (shown := placeholder(self.type)):
                return shown
            raise UnsupportedFeature(
                f"{path}.type is {self.type!r}, but this server reads text only", param=f"{path}.type"
            )
        return required(self.text if self.type == "text" else self.refusal, f"{path}.{self.type}")


Content: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[ContentPart, ...], Field(max_length=MAX_PARTS), ARRAY],
    by_kind("a string, null or an array of text parts"),
]


class InputFunctionCall(RequestBody):
    """The function of a call: its name, and its arguments as JSON text."""

    name: ToolName
    """The function's name."""
    arguments: ArgumentsText = "{}"
    """JSON text of an object; all else is as good as `{}`."""


class InputCustomCall(RequestBody):
    """The custom tool of a call: its name, and the text that it was given."""

    name: ToolName
    """The tool's name."""
    input: Annotated[str, Field(max_length=MAX_ARGUMENT_CHARS)]


class InputToolCall(RequestBody):
    """One call that an assistant's turn made."""

    id: ToolCallId = ""
    """What the turn with its result names as `tool_call_id`."""
    type: Literal["function", "custom"] = "function"
    function: InputFunctionCall | None = None
    """Required for the type `function`."""
    custom: InputCustomCall | None = None
    """Required for the type `custom`."""

    def to_call(self, path: str) -> ToolCall:
        """The call as engines know it; `path` is where it stands."""
        if self.type == "custom":
            custom = required(self.custom, f"{path}.custom")
            return ToolCall(self.id, custom.name, arguments_of(custom.input))
        function = required(self.function, f"{path}.function")
        return ToolCall(self.id, function.name, function.arguments)


class ChatMessage(OpenBody):
    """One turn."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"function_call": (), "audio": ()}

    role: Annotated[Literal["system", "user", "assistant", "tool", "developer"], LowerCase]
    """Who speaks; goes to the model's chat template."""
    content: Content | None = None
    """The text, or its parts, which are joined by line breaks."""
    name: Annotated[str, Field(max_length=256)] | None = None
    """Goes to the model's chat template."""
    tool_calls: Annotated[tuple[InputToolCall, ...], Field(max_length=MAX_TOOLS)] | None = None
    """Calls an assistant's turn made."""
    tool_call_id: ToolCallId | None = None
    """The call that a tool's turn answers."""
    reasoning_content: str | None = None
    """What an assistant's turn thought before it answered."""
    refusal: str | None = None
    """Text of an assistant's turn, where it had no other."""

    def to_message(self, path: str, *, earlier: bool) -> Message:
        """The turn as engines know it; `path` is where it stands, `earlier` whether it was answered."""
        self.refuse_unsupported(f"{path}.")
        check_caller(self.role, self.tool_calls, path)
        return Message(
            self.role,
            self._text(path, earlier=earlier),
            self.name,
            tuple(
                call.to_call(f"{path}.tool_calls.{index}") for index, call in enumerate(self.tool_calls or ())
            ),
            self.tool_call_id,
            self.reasoning_content,
        )

    def _text(self, path: str, *, earlier: bool) -> str:
        if self.content is None:
            return self.refusal or ""
        if isinstance(self.content, str):
            return self.content
        parts = (part.to_text(f"{path}.content.{i}", earlier=earlier) for i, part in enumerate(self.content))
        return "\n".join(filter(None, parts))


Messages: TypeAlias = Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]


def to_messages(messages: tuple[ChatMessage, ...]) -> tuple[Message, ...]:
    """All turns, as engines know them."""
    current = current_turn([message.role for message in messages])
    return with_paired_calls(
        message.to_message(f"messages.{i}", earlier=i < current) for i, message in enumerate(messages)
    )
