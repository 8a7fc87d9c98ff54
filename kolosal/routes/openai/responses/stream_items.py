"""Output items while they are generated, and the events that tell of their content. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from typing_extensions import TypedDict

from kolosal.routes.openai.encode import ChosenLogprob, token_logprobs
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.items import (
    CallItem,
    ContentPart,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    new_id,
    output_text,
)
from kolosal.schema import TokenLogprobs


class EventFields(TypedDict, total=False):
    """What an event holds besides its type and its number; each type has some of these."""

    response: ResponseObject
    item_id: str
    output_index: int
    item: OutputItem
    content_index: int
    delta: str
    text: str
    logprobs: list[ChosenLogprob]
    part: ContentPart | ReasoningText
    name: str
    arguments: str


ContentEvent: TypeAlias = tuple[str, EventFields]
"""The type of an event about an item's content, and its fields but the item's id and place, which the writer adds."""


@dataclass(slots=True)
class StreamedMessage:
    """An answer's text."""

    id: str = field(default_factory=lambda: new_id("msg"))
    pieces: list[str] = field(default_factory=list)
    logprobs: list[ChosenLogprob] = field(default_factory=list)

    def empty(self) -> MessageItem:
        """The item as it begins."""
        return self._item((), "in_progress")

    def item(self, status: ItemStatus) -> MessageItem:
        """The item with the text so far."""
        return self._item((self._content(),), status)

    def first(self) -> list[ContentEvent]:
        """What comes after the item was added."""
        return [("response.content_part.added", {"content_index": 0, "part": output_text("")})]

    def push(self, text: str, logprobs: tuple[TokenLogprobs, ...]) -> ContentEvent:
        """Add a piece of the text."""
        entries = token_logprobs(logprobs, spell_control=False)
        self.pieces.append(text)
        self.logprobs += entries
        return "response.output_text.delta", {"content_index": 0, "delta": text, "logprobs": entries}

    def last(self) -> list[ContentEvent]:
        """What comes before the item is done."""
        part = self._content()
        text: EventFields = {"content_index": 0, "text": part["text"], "logprobs": part["logprobs"]}
        return [
            ("response.output_text.done", text),
            ("response.content_part.done", {"content_index": 0, "part": part}),
        ]

    def _content(self) -> OutputText:
        return output_text("".join(self.pieces), self.logprobs)

    def _item(self, content: Sequence[OutputText], status: ItemStatus) -> MessageItem:
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}


@dataclass(slots=True)
class StreamedReasoning:
    """What the model thinks."""

    id: str = field(default_factory=lambda: new_id("rs"))
    pieces: list[str] = field(default_factory=list)

    def empty(self) -> ReasoningItem:
        """The item as it begins."""
        return self._item((), "in_progress")

    def item(self, status: ItemStatus) -> ReasoningItem:
        """The item with the thoughts so far."""
        return self._item((self._content(),), status)

    def first(self) -> list[ContentEvent]:
        """What comes after the item was added."""
        return [("response.content_part.added", {"content_index": 0, "part": self._content()})]

    def push(self, text: str) -> ContentEvent:
        """Add a piece of the thoughts."""
        self.pieces.append(text)
        return "response.reasoning_text.delta", {"content_index": 0, "delta": text}

    def last(self) -> list[ContentEvent]:
        """What comes before the item is done."""
        part = self._content()
        return [
            ("response.reasoning_text.done", {"content_index": 0, "text": part["text"]}),
            ("response.content_part.done", {"content_index": 0, "part": part}),
        ]

    def _content(self) -> ReasoningText:
        return {"type": "reasoning_text", "text": "".join(self.pieces)}

    def _item(self, content: Sequence[ReasoningText], status: ItemStatus) -> ReasoningItem:
        return {"id": self.id, "type": "reasoning", "summary": [], "content": content, "status": status}


@dataclass(slots=True)
class StreamedCall:
    """A call of a function."""

    call_id: str
    name: str
    id: str = field(default_factory=lambda: new_id("fc"))
    pieces: list[str] = field(default_factory=list)

    def empty(self) -> CallItem:
        """The item as it begins."""
        return self.item("in_progress")

    def item(self, status: ItemStatus) -> CallItem:
        """The item with the arguments so far."""
        return {
            "id": self.id,
            "type": "function_call",
            "call_id": self.call_id,
            "name": self.name,
            "arguments": "".join(self.pieces),
            "status": status,
        }

    def first(self) -> list[ContentEvent]:
        """What comes after the item was added."""
        return []

    def push(self, arguments: str) -> ContentEvent:
        """Add a piece of the arguments."""
        self.pieces.append(arguments)
        return "response.function_call_arguments.delta", {"delta": arguments}

    def last(self) -> list[ContentEvent]:
        """What comes before the item is done."""
        fields: EventFields = {"name": self.name, "arguments": "".join(self.pieces)}
        return [("response.function_call_arguments.done", fields)]


StreamedItem: TypeAlias = StreamedMessage | StreamedReasoning | StreamedCall
