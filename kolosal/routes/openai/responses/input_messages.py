"""Items of `input` that were said or thought, from JSON to items.

https://platform.openai.com/docs/api-reference/responses/create#responses_create-input
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import UnsupportedFeature
from kolosal.http.decode import RequestBody
from kolosal.routes.common.body import required
from kolosal.routes.common.fields import ARRAY, STRING, by_kind
from kolosal.routes.common.history import (
    LowerCase,
    placeholder,
)
from kolosal.routes.common.tools import ToolCallId
from kolosal.routes.openai.messages import MAX_PARTS
from kolosal.routes.openai.responses.items import (
    MAX_TYPE_CHARS,
    ContentPart,
    Item,
    ItemStatus,
    MessageRole,
    new_id,
    output_text,
)

ItemId: TypeAlias = Annotated[ToolCallId, Field(min_length=1)]
"""Of an item, or of the call that an item is about."""


OpenThoughts: TypeAlias = Callable[[str], str | None]
"""The thoughts in an `encrypted_content`; None where that is not ours."""


class InputPart(RequestBody):
    """One part of a message or of a call's output: text, or the words of a refusal."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    text: str | None = None
    refusal: str | None = None

    def to_content(self, path: str, *, earlier: bool) -> ContentPart:
        """The part; `path` is where it stands, `earlier` whether in a turn that was answered."""
        if earlier and (shown := placeholder(self.type)):
            return {"type": "input_text", "text": shown}
        match self.type:
            case "input_text":
                return {"type": "input_text", "text": required(self.text, f"{path}.text")}
            case "output_text":
                return output_text(required(self.text, f"{path}.text"))
            case "refusal":
                return {"type": "refusal", "refusal": required(self.refusal, f"{path}.refusal")}
            case _:
                raise UnsupportedFeature(
                    f"{path}.type is {self.type!r}, but this server reads input_text, output_text and refusal only",
                    param=f"{path}.type",
                )


Content: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[InputPart, ...], Field(max_length=MAX_PARTS), ARRAY],
    by_kind("a string or an array of text parts"),
]


class ItemInput(RequestBody):
    """What all items have, and a client may leave out."""

    id: ItemId | None = None
    status: ItemStatus | None = None


class MessageInput(ItemInput):
    """Something that was said; `type` may be left out."""

    type: Literal["message"] | None = None
    role: Annotated[MessageRole, LowerCase]
    content: Content = ""

    def to_item(self, path: str, *, earlier: bool = False) -> Item:
        """The item; `path` is where it stands, `earlier` whether it was answered."""
        return {
            "id": self.id or new_id("msg"),
            "type": "message",
            "role": self.role,
            "status": self.status or "completed",
            "content": self._content(path, earlier=earlier),
        }

    def _content(self, path: str, *, earlier: bool) -> list[ContentPart]:
        if not isinstance(self.content, str):
            return [
                part.to_content(f"{path}.content.{i}", earlier=earlier) for i, part in enumerate(self.content)
            ]
        if self.role == "assistant":
            return [output_text(self.content)]
        return [{"type": "input_text", "text": self.content}]


class AgentPart(InputPart):
    """A part of what one agent says to another."""

    encrypted_content: str | None = None
    """What the model gave for an argument that OpenAI's models encrypt. Those here write it as it is."""

    def to_content(self, path: str, *, earlier: bool) -> ContentPart:
        """The part; see above."""
        if self.type == "encrypted_content":
            said = required(self.encrypted_content, f"{path}.encrypted_content")
            return {"type": "input_text", "text": said}
        return InputPart.to_content(self, path, earlier=earlier)


class AgentMessageInput(ItemInput):
    """What one of Codex's agents said to another: to the model, what a user says."""

    type: Literal["agent_message"]
    content: Annotated[tuple[AgentPart, ...], Field(max_length=MAX_PARTS)]

    def to_item(self, path: str, *, earlier: bool) -> Item:
        """The item; `path` is where it stands, `earlier` whether it was answered."""
        return {
            "id": self.id or new_id("msg"),
            "type": "message",
            "role": "user",
            "status": self.status or "completed",
            "content": [
                part.to_content(f"{path}.content.{i}", earlier=earlier) for i, part in enumerate(self.content)
            ],
        }


class ThoughtPart(RequestBody):
    """One part of a reasoning item."""

    type: Annotated[str, Field(max_length=MAX_TYPE_CHARS)]
    text: str


Thoughts: TypeAlias = Annotated[tuple[ThoughtPart, ...], Field(max_length=MAX_PARTS)]


class ReasoningInput(ItemInput):
    """What the model thought earlier.

    Its `content` goes to the chat template; without any, its `encrypted_content`; and where that is not ours, its `summary`.
    """

    type: Literal["reasoning"]
    content: Thoughts | None = None
    summary: Thoughts | None = None
    encrypted_content: str | None = None
    """What this daemon gave under that name. Any other is left out, as a client that goes on with another server's session has it."""

    def to_item(self, _path: str, open_thoughts: OpenThoughts) -> Item:
        """The item."""
        thoughts = [part.text for part in self.content or ()]
        if not thoughts and self.encrypted_content:
            opened = open_thoughts(self.encrypted_content)
            thoughts = [] if opened is None else [opened]
        return {
            "id": self.id or new_id("rs"),
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": part.text} for part in self.summary or ()],
            "content": [{"type": "reasoning_text", "text": text} for text in thoughts],
            "status": self.status or "completed",
        }
