"""Output items while they are generated, and the events that tell of their content. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from typing_extensions import TypedDict

from kolosal.chat.events import CallBegin
from kolosal.routes.openai.encode import ChosenLogprob, token_logprobs
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.items import (
    ContentPart,
    ItemStatus,
    OutputItem,
    OutputText,
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


ItemKind: TypeAlias = Literal["message", "reasoning", "function_call"]


class StreamedItem:
    """An item whose text comes in pieces: an answer, a thought, or a call, whose text is that of its arguments."""

    def __init__(self, kind: ItemKind, call: CallBegin | None = None) -> None:
        """`call` is there for a `function_call`."""
        self.kind = kind
        self.id = new_id({"message": "msg", "reasoning": "rs", "function_call": "fc"}[kind])
        self._call = call
        self._pieces: list[str] = []
        self._logprobs: list[ChosenLogprob] = []

    def item(self, status: ItemStatus, *, begins: bool = False) -> OutputItem:
        """The item with the text so far; one that `begins` has not even an empty part for it."""
        if self._call is not None:
            return {
                "id": self.id,
                "type": "function_call",
                "call_id": self._call.id,
                "name": self._call.name,
                "arguments": "".join(self._pieces),
                "status": status,
            }
        part = self._part()
        if part["type"] == "reasoning_text":
            thoughts = () if begins else (part,)
            return {"id": self.id, "type": "reasoning", "summary": [], "content": thoughts, "status": status}
        text = () if begins else (part,)
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": text}

    def first(self) -> list[ContentEvent]:
        """What comes after the item was added."""
        if self._call is not None:
            return []
        return [("response.content_part.added", {"content_index": 0, "part": self._part()})]

    def push(self, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> ContentEvent:
        """Add a piece of the text."""
        self._pieces.append(text)
        if self._call is not None:
            return "response.function_call_arguments.delta", {"delta": text}
        if self.kind == "reasoning":
            return "response.reasoning_text.delta", {"content_index": 0, "delta": text}
        entries = token_logprobs(logprobs, spell_control=False)
        self._logprobs += entries
        return "response.output_text.delta", {"content_index": 0, "delta": text, "logprobs": entries}

    def last(self) -> list[ContentEvent]:
        """What comes before the item is done."""
        if self._call is not None:
            arguments = "".join(self._pieces)
            return [
                ("response.function_call_arguments.done", {"name": self._call.name, "arguments": arguments})
            ]
        part = self._part()
        done: EventFields = {"content_index": 0, "text": part["text"]}
        if part["type"] == "output_text":
            done["logprobs"] = part["logprobs"]
        return [
            (f"response.{part['type']}.done", done),
            ("response.content_part.done", {"content_index": 0, "part": part}),
        ]

    def _part(self) -> OutputText | ReasoningText:
        text = "".join(self._pieces)
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return output_text(text, self._logprobs)
