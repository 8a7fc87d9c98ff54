"""ResponseWriter: from the events of a turn to the output items of a response, and to the events of its stream.

Pure: the same writer makes whole answers and streams, so both have the same items in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.errors import KolosalError
from kolosal.routes.openai.responses.encode import (
    ResponseHead,
    ResponseObject,
    ResponseStatus,
    response_object,
)
from kolosal.routes.openai.responses.items import ItemStatus, OutputItem
from kolosal.routes.openai.responses.stream_items import (
    ContentEvent,
    EventFields,
    ItemKind,
    Seal,
    StreamedCall,
    StreamedCustomCall,
    StreamedItem,
    StreamedMessage,
    StreamedReasoning,
    StreamedSearchCall,
)
from kolosal.routes.openai.responses.tools import OfferedTools
from kolosal.schema import FinishReason, TokenLogprobs


class ResponseEvent(EventFields):
    """One event of a stream."""

    type: str
    sequence_number: int


class ResponseWriter:
    """One response. `begin`, any number of `push`, and then one end: `Ended` pushed, `fail` or `cancel`.

    Each gives the events to send. After the end nothing more comes.
    """

    def __init__(
        self,
        head: ResponseHead,
        clock: Callable[[], float],
        tools: OfferedTools = OfferedTools(),  # noqa: B008 - frozen
        seal: Seal | None = None,
    ) -> None:
        """`clock` gives Unix time; `tools` are those that the model may call; `seal` makes `encrypted_content` of thoughts."""
        self.status: ResponseStatus = "in_progress"
        self._head = head
        self._clock = clock
        self._tools = tools
        self._seal = seal
        self._sequence = 0
        self._events: list[ResponseEvent] = []
        """Those that the call at hand will give."""
        self._done: list[OutputItem] = []
        self._open: StreamedItem | None = None
        self._waiting: tuple[TokenLogprobs, ...] = ()
        self._ended: Ended | None = None
        self._error: KolosalError | None = None
        self._completed_at: int | None = None

    @property
    def begun(self) -> bool:
        """Whether its first events were made."""
        return self._sequence > 0

    @property
    def ended(self) -> bool:
        """Whether the response has its final status."""
        return self.status != "in_progress"

    @property
    def output(self) -> tuple[OutputItem, ...]:
        """The items so far, the one that is being generated included."""
        return (*self._done, *(() if self._open is None else (self._open.item("in_progress"),)))

    def response(self) -> ResponseObject:
        """The response as it is now."""
        return response_object(
            self._head,
            self.status,
            self.output,
            ended=self._ended,
            error=self._error,
            completed_at=self._completed_at,
        )

    def begin(self) -> list[ResponseEvent]:
        """The first events."""
        self._emit("response.created", {"response": self.response()})
        self._emit("response.in_progress", {"response": self.response()})
        return self._emitted()

    def push(self, event: ChatEvent) -> list[ResponseEvent]:
        """What an event of the turn adds.

        Tokens that are a part of a character wait for the token that completes it. Where a thought or a call comes in its
        place, they were that one's.
        """
        match event:
            case TextPiece(text=text, logprobs=logprobs):
                self._waiting += logprobs
                if text:
                    self._write("message", text)
            case ThinkingPiece(text=text):
                self._waiting = ()
                if text:
                    self._write("reasoning", text)
            case CallBegin():
                self._waiting = ()
                self._begin(self._call(event))
            case CallPiece():
                self._write("call", event.arguments)
            case CallEnd():
                self._waiting = ()
                self._close("completed")
            case Ended():
                self._finish(event)
            case _:
                assert_never(event)
        return self._emitted()

    def fail(self, error: KolosalError) -> list[ResponseEvent]:
        """The generation failed."""
        self._error = error
        self._end("failed", "response.failed")
        return self._emitted()

    def cancel(self) -> list[ResponseEvent]:
        """Nobody wants the rest. There is no event of that name: the response says so in its status."""
        self._end("cancelled", "response.incomplete")
        return self._emitted()

    def disown(self) -> None:
        """The response, which has ended, was not kept: from now on it says so."""
        self._head = {**self._head, "store": False}

    def told_again(self, last: ResponseEvent) -> ResponseEvent:
        """The last event, with the response as it is now."""
        return {**last, "response": self.response()}

    def fail_in_place_of(self, last: ResponseEvent, error: KolosalError) -> list[ResponseEvent]:
        """The last event, which nobody was sent, becomes that of a failure."""
        self._sequence = last["sequence_number"]
        return self.fail(error)

    # --- items ---

    def _write(self, kind: ItemKind, text: str) -> None:
        """Text, and the tokens that waited for it, go to the open item, which is a new one where that is of another kind."""
        opened = self._open
        if opened is None or opened.kind != kind:
            opened = self._begin(StreamedMessage() if kind == "message" else StreamedReasoning(self._seal))
        if (event := opened.push(text, self._waiting)) is not None:
            self._emit_content(opened, event)
        self._waiting = ()

    def _call(self, begin: CallBegin) -> StreamedItem:
        """A call by the name that the client knows."""
        tool = self._tools.by_name.get(begin.name)
        if tool is None:
            return StreamedCall(begin.id, begin.name, None)
        match tool.kind:
            case "custom":
                return StreamedCustomCall(begin.id, tool.name, tool.namespace)
            case "tool_search":
                return StreamedSearchCall(begin.id)
            case _:
                return StreamedCall(begin.id, tool.name, tool.namespace)

    def _begin(self, opened: StreamedItem) -> StreamedItem:
        self._close_for_next()
        self._open = opened
        self._emit(
            "response.output_item.added",
            {"output_index": len(self._done), "item": opened.item("in_progress", begins=True)},
        )
        for event in opened.first():
            self._emit_content(opened, event)
        return opened

    def _close_for_next(self) -> None:
        """A call that nobody ended was cut off, whatever comes after it."""
        cut_off = self._open is not None and self._open.kind == "call"
        self._close("incomplete" if cut_off else "completed")

    def _close(self, status: ItemStatus) -> None:
        if self._open is None:
            return
        item = self._open.item(status)
        for event in self._open.last():
            self._emit_content(self._open, event)
        self._emit("response.output_item.done", {"output_index": len(self._done), "item": item})
        self._open = None
        self._done.append(item)

    # --- the end ---

    def _finish(self, ended: Ended) -> None:
        self._ended = ended
        if self._open is None:
            if not self._done:
                self._begin(StreamedMessage())
        elif self._open.kind == "message" and self._waiting:
            self._write("message", "")
        if ended.finish_reason is FinishReason.LENGTH:
            self._end("incomplete", "response.incomplete")
            return
        self._completed_at = int(self._clock())
        self._close_for_next()
        self._end("completed", "response.completed")

    def _end(self, status: ResponseStatus, name: str) -> None:
        self._close("incomplete")
        self.status = status
        self._emit(name, {"response": self.response()})

    # --- events ---

    def _emit_content(self, opened: StreamedItem, event: ContentEvent) -> None:
        kind, fields = event
        self._emit(kind, {"item_id": opened.id, "output_index": len(self._done), **fields})

    def _emit(self, kind: str, fields: EventFields) -> None:
        self._events.append({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1

    def _emitted(self) -> list[ResponseEvent]:
        events, self._events = self._events, []
        return events
