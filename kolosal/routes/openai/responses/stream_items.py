"""Output items while they are generated, and the events that tell of their content. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from typing_extensions import TypedDict, override

from kolosal.chat.events import parsed_arguments
from kolosal.routes.openai.custom_tools import InputReader
from kolosal.routes.openai.encode import ChosenLogprob, token_logprobs
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.items import (
    CallItem,
    ContentPart,
    CustomCallItem,
    ItemStatus,
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
    input: str


ContentEvent: TypeAlias = tuple[str, EventFields]
"""The type of an event about an item's content, and its fields but the item's id and place, which the writer adds."""


ItemKind: TypeAlias = Literal["message", "reasoning", "call"]

Seal: TypeAlias = Callable[[str], str]
"""Makes thoughts what a client can keep and give back."""


class StreamedItem(ABC):
    """An item whose text comes in pieces."""

    kind: ItemKind

    def __init__(self, prefix: str) -> None:
        self.id = new_id(prefix)
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All pieces so far."""
        return "".join(self._pieces)

    @abstractmethod
    def item(self, status: ItemStatus, *, begins: bool = False) -> OutputItem:
        """The item with the text so far; one that `begins` has not even an empty part for it."""

    @abstractmethod
    def first(self) -> list[ContentEvent]:
        """What comes after the item was added."""

    @abstractmethod
    def push(self, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> ContentEvent | None:
        """Add a piece of the text; None where that adds nothing that is told."""

    @abstractmethod
    def last(self) -> list[ContentEvent]:
        """What comes before the item is done."""


class StreamedMessage(StreamedItem):
    """An answer."""

    kind = "message"

    def __init__(self) -> None:
        super().__init__("msg")
        self._logprobs: list[ChosenLogprob] = []

    @override
    def item(self, status: ItemStatus, *, begins: bool = False) -> OutputItem:
        text = () if begins else (self._part(),)
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": text}

    @override
    def first(self) -> list[ContentEvent]:
        return [("response.content_part.added", {"content_index": 0, "part": self._part()})]

    @override
    def push(self, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> ContentEvent:
        self._pieces.append(text)
        entries = token_logprobs(logprobs, spell_control=False)
        self._logprobs += entries
        return "response.output_text.delta", {"content_index": 0, "delta": text, "logprobs": entries}

    @override
    def last(self) -> list[ContentEvent]:
        part = self._part()
        done: EventFields = {"content_index": 0, "text": part["text"], "logprobs": part["logprobs"]}
        return [
            ("response.output_text.done", done),
            ("response.content_part.done", {"content_index": 0, "part": part}),
        ]

    def _part(self) -> OutputText:
        return output_text(self.text, self._logprobs)


class StreamedReasoning(StreamedItem):
    """A thought; `seal`, where its text is to be given in that form, too."""

    kind = "reasoning"

    def __init__(self, seal: Seal | None) -> None:
        super().__init__("rs")
        self._seal = seal

    @override
    def item(self, status: ItemStatus, *, begins: bool = False) -> OutputItem:
        thoughts = () if begins else (self._part(),)
        item: ReasoningItem = {
            "id": self.id,
            "type": "reasoning",
            "summary": [],
            "content": thoughts,
            "status": status,
        }
        if self._seal is not None and status != "in_progress":
            item["encrypted_content"] = self._seal(self.text)
        return item

    @override
    def first(self) -> list[ContentEvent]:
        return [("response.content_part.added", {"content_index": 0, "part": self._part()})]

    @override
    def push(self, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> ContentEvent:
        self._pieces.append(text)
        return "response.reasoning_text.delta", {"content_index": 0, "delta": text}

    @override
    def last(self) -> list[ContentEvent]:
        part = self._part()
        return [
            ("response.reasoning_text.done", {"content_index": 0, "text": part["text"]}),
            ("response.content_part.done", {"content_index": 0, "part": part}),
        ]

    def _part(self) -> ReasoningText:
        return {"type": "reasoning_text", "text": self.text}


class StreamedCall(StreamedItem):
    """A call of a function; its text is that of its arguments."""

    kind = "call"

    def __init__(self, call_id: str, name: str, namespace: str | None) -> None:
        super().__init__("fc")
        self._call_id, self._name, self._namespace = call_id, name, namespace

    @override
    def item(self, status: ItemStatus, *, begins: bool = False) -> OutputItem:
        item: CallItem = {
            "id": self.id,
            "type": "function_call",
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self.text,
            "status": status,
        }
        return item if self._namespace is None else {**item, "namespace": self._namespace}

    @override
    def first(self) -> list[ContentEvent]:
        return []

    @override
    def push(self, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> ContentEvent:
        self._pieces.append(text)
        return "response.function_call_arguments.delta", {"delta": text}

    @override
    def last(self) -> list[ContentEvent]:
        done: EventFields = {"name": self._name, "arguments": self.text}
        return [("response.function_call_arguments.done", done)]


class StreamedCustomCall(StreamedItem):
    """A call of a custom tool; what is pushed are its arguments, its text is the input in them."""

    kind = "call"

    def __init__(self, call_id: str, name: str, namespace: str | None) -> None:
        super().__init__("ctc")
        self._call_id, self._name, self._namespace = call_id, name, namespace
        self._reader = InputReader()

    @override
    def item(self, status: ItemStatus, *, begins: bool = False) -> OutputItem:
        item: CustomCallItem = {
            "id": self.id,
            "type": "custom_tool_call",
            "call_id": self._call_id,
            "name": self._name,
            "input": self.text,
            "status": status,
        }
        return item if self._namespace is None else {**item, "namespace": self._namespace}

    @override
    def first(self) -> list[ContentEvent]:
        return []

    @override
    def push(self, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> ContentEvent | None:
        delta = self._reader.push(text)
        self._pieces.append(delta)
        return ("response.custom_tool_call_input.delta", {"delta": delta}) if delta else None

    @override
    def last(self) -> list[ContentEvent]:
        return [("response.custom_tool_call_input.done", {"input": self.text})]


class StreamedSearchCall(StreamedItem):
    """A search for tools; its text is that of its arguments, and only the whole of it is told."""

    kind = "call"

    def __init__(self, call_id: str) -> None:
        super().__init__("tsc")
        self._call_id = call_id

    @override
    def item(self, status: ItemStatus, *, begins: bool = False) -> OutputItem:
        return {
            "id": self.id,
            "type": "tool_search_call",
            "call_id": self._call_id,
            "execution": "client",
            "arguments": parsed_arguments(self.text) or {},
            "status": status,
        }

    @override
    def first(self) -> list[ContentEvent]:
        return []

    @override
    def push(self, text: str, logprobs: Sequence[TokenLogprobs] = ()) -> ContentEvent | None:
        self._pieces.append(text)
        return None

    @override
    def last(self) -> list[ContentEvent]:
        return []
