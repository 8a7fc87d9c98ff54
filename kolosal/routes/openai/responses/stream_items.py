"""Output items while they grow, and the events that say so. Pure.

An event here is its name and what it holds besides its number, its item and the item's place, which the writer knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kolosal.routes.openai.responses.items import (
    CallItem,
    MessageItem,
    ReasoningItem,
    Status,
    TextContent,
    content_json,
    logprobs_json,
    new_id,
    reasoning_json,
)
from kolosal.schema import TokenLogprobs

Draft: TypeAlias = tuple[str, dict[str, Any]]


@dataclass(slots=True)
class StreamedMessage:
    """An answer's text."""

    id: str = field(default_factory=lambda: new_id("msg"))
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    def empty(self) -> MessageItem:
        """The item as it begins."""
        return MessageItem(self.id, "assistant", (), Status.IN_PROGRESS)

    def item(self, status: Status) -> MessageItem:
        """What there is of it."""
        return MessageItem(self.id, "assistant", (self._content(),), status)

    def first(self) -> list[Draft]:
        """What comes after the item was added."""
        part = content_json(TextContent("output_text", ""))
        return [("response.content_part.added", {"content_index": 0, "part": part})]

    def more(self, text: str, logprobs: tuple[TokenLogprobs, ...]) -> Draft:
        """Add a piece."""
        self.pieces.append(text)
        self.logprobs += logprobs
        values = {"content_index": 0, "delta": text, "logprobs": logprobs_json(logprobs)}
        return "response.output_text.delta", values

    def last(self) -> list[Draft]:
        """What comes before the item is done."""
        content = self._content()
        text = {"text": content.text, "logprobs": logprobs_json(content.logprobs)}
        return [
            ("response.output_text.done", {"content_index": 0, **text}),
            ("response.content_part.done", {"content_index": 0, "part": content_json(content)}),
        ]

    def _content(self) -> TextContent:
        return TextContent("output_text", "".join(self.pieces), tuple(self.logprobs))


@dataclass(slots=True)
class StreamedReasoning:
    """What the model thinks."""

    id: str = field(default_factory=lambda: new_id("rs"))
    pieces: list[str] = field(default_factory=list)

    def empty(self) -> ReasoningItem:
        """The item as it begins."""
        return ReasoningItem(self.id, (), status=Status.IN_PROGRESS)

    def item(self, status: Status) -> ReasoningItem:
        """What there is of it."""
        return ReasoningItem(self.id, ("".join(self.pieces),), status=status)

    def first(self) -> list[Draft]:
        """What comes after the item was added."""
        return [("response.content_part.added", {"content_index": 0, "part": reasoning_json("")})]

    def more(self, text: str) -> Draft:
        """Add a piece."""
        self.pieces.append(text)
        return "response.reasoning_text.delta", {"content_index": 0, "delta": text}

    def last(self) -> list[Draft]:
        """What comes before the item is done."""
        text = "".join(self.pieces)
        return [
            ("response.reasoning_text.done", {"content_index": 0, "text": text}),
            ("response.content_part.done", {"content_index": 0, "part": reasoning_json(text)}),
        ]


@dataclass(slots=True)
class StreamedCall:
    """A call of a function."""

    call_id: str
    name: str
    id: str = field(default_factory=lambda: new_id("fc"))
    pieces: list[str] = field(default_factory=list)

    def empty(self) -> CallItem:
        """The item as it begins."""
        return self.item(Status.IN_PROGRESS)

    def item(self, status: Status) -> CallItem:
        """What there is of it."""
        return CallItem(self.id, self.call_id, self.name, "".join(self.pieces), status)

    def first(self) -> list[Draft]:
        """What comes after the item was added."""
        return []

    def more(self, arguments: str) -> Draft:
        """Add a piece of the arguments."""
        self.pieces.append(arguments)
        return "response.function_call_arguments.delta", {"delta": arguments}

    def last(self) -> list[Draft]:
        """What comes before the item is done."""
        values = {"name": self.name, "arguments": "".join(self.pieces)}
        return [("response.function_call_arguments.done", values)]


Growing: TypeAlias = StreamedMessage | StreamedReasoning | StreamedCall
