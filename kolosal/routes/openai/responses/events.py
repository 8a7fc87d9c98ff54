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
    StreamedCall,
    StreamedItem,
    StreamedMessage,
    StreamedReasoning,
)
from kolosal.schema import FinishReason, TokenLogprobs


class ResponseEvent(EventFields):
    """One event of a stream."""

    type: str
    sequence_number: int


class ResponseWriter:
    """One response. `begin`, any number of `push`, and then one end: `Ended` pushed, `fail` or `cancel`.

    Each gives the events to send. After the end nothing more comes.
    """

    def __init__(self, head: ResponseHead, clock: Callable[[], float]) -> None:
        """`clock` gives Unix time."""
        self.status: ResponseStatus = "in_progress"
        self.response_id = head["id"]
        self._head = head
        self._clock = clock
        self._sequence = 0
        self._done: list[OutputItem] = []
        self._open: StreamedItem | None = None
        self._waiting: tuple[TokenLogprobs, ...] = ()
        self._ended: Ended | None = None
        self._error: KolosalError | None = None
        self._completed_at: int | None = None

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
        return [self._lifecycle("response.created"), self._lifecycle("response.in_progress")]

    def push(self, event: ChatEvent) -> list[ResponseEvent]:
        """What an event of the turn adds."""
        match event:
            case TextPiece():
                return self._push_text(event.text, event.logprobs)
            case ThinkingPiece():
                return self._push_thought(event.text)
            case CallBegin():
                self._waiting = ()
                return self._begin(StreamedCall(event.id, event.name))
            case CallPiece():
                assert isinstance(self._open, StreamedCall)  # noqa: S101 - a call's pieces follow its begin
                return [self._content_event(self._open, self._open.push(event.arguments))]
            case CallEnd():
                self._waiting = ()
                return self._close("completed")
            case Ended():
                return self._finish(event)
            case _:
                assert_never(event)

    def fail(self, error: KolosalError) -> list[ResponseEvent]:
        """The generation failed."""
        self._error = error
        return self._end("failed", "response.failed")

    def cancel(self) -> list[ResponseEvent]:
        """Nobody wants the rest. There is no event of that name: the response says so in its status."""
        return self._end("cancelled", "response.incomplete")

    # --- items ---

    def _push_text(self, text: str, logprobs: tuple[TokenLogprobs, ...]) -> list[ResponseEvent]:
        """More of the answer. Tokens that are a part of a character wait for the token that completes it.

        Where a thought or a call comes in its place, they were that one's.
        """
        self._waiting += logprobs
        if not text:
            return []
        events = [] if isinstance(self._open, StreamedMessage) else self._begin(StreamedMessage())
        return [*events, *self._flush(text)]

    def _flush(self, text: str) -> list[ResponseEvent]:
        """Text, and the tokens that waited for it, go to the open message."""
        opened, logprobs = self._open, self._waiting
        if not isinstance(opened, StreamedMessage) or not (text or logprobs):
            return []
        self._waiting = ()
        return [self._content_event(opened, opened.push(text, logprobs))]

    def _push_thought(self, text: str) -> list[ResponseEvent]:
        self._waiting = ()
        if not text:
            return []
        opened, events = self._open, list[ResponseEvent]()
        if not isinstance(opened, StreamedReasoning):
            opened = StreamedReasoning()
            events = self._begin(opened)
        return [*events, self._content_event(opened, opened.push(text))]

    def _begin(self, opened: StreamedItem) -> list[ResponseEvent]:
        events = self._close_for_next()
        self._open = opened
        return [
            *events,
            self._item_event("response.output_item.added", opened.empty()),
            *(self._content_event(opened, event) for event in opened.first()),
        ]

    def _close_for_next(self) -> list[ResponseEvent]:
        """A call that nobody ended was cut off, whatever comes after it."""
        return self._close("incomplete" if isinstance(self._open, StreamedCall) else "completed")

    def _close(self, status: ItemStatus) -> list[ResponseEvent]:
        opened = self._open
        if opened is None:
            return []
        item = opened.item(status)
        events = [self._content_event(opened, event) for event in opened.last()]
        events.append(self._item_event("response.output_item.done", item))
        self._open = None
        self._done.append(item)
        return events

    # --- the end ---

    def _finish(self, ended: Ended) -> list[ResponseEvent]:
        self._ended = ended
        events = self._flush("")
        if not self.output:
            events = self._begin(StreamedMessage())
        if ended.finish_reason is FinishReason.LENGTH:
            return events + self._end("incomplete", "response.incomplete")
        self._completed_at = int(self._clock())
        events += self._close_for_next()
        return events + self._end("completed", "response.completed")

    def _end(self, status: ResponseStatus, name: str) -> list[ResponseEvent]:
        events = self._close("incomplete")
        self.status = status
        return [*events, self._lifecycle(name)]

    # --- events ---

    def _lifecycle(self, kind: str) -> ResponseEvent:
        return self._event(kind, {"response": self.response()})

    def _item_event(self, kind: str, item: OutputItem) -> ResponseEvent:
        return self._event(kind, {"output_index": len(self._done), "item": item})

    def _content_event(self, opened: StreamedItem, event: ContentEvent) -> ResponseEvent:
        kind, fields = event
        return self._event(kind, {"item_id": opened.id, "output_index": len(self._done), **fields})

    def _event(self, kind: str, fields: EventFields) -> ResponseEvent:
        event: ResponseEvent = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event
