"""ResponseWriter: from the events of a turn to the output items of a response, and to the events of its stream.

Pure: the same writer makes whole answers and streams, so both have the same items in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

import orjson

from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.errors import KolosalError
from kolosal.routes.openai.responses.encode import response_json
from kolosal.routes.openai.responses.items import Item, Status, item_json
from kolosal.routes.openai.responses.stream_items import (
    Draft,
    Growing,
    StreamedCall,
    StreamedMessage,
    StreamedReasoning,
)
from kolosal.schema import FinishReason, TokenLogprobs

Event = dict[str, Any]
"""One event of a stream, as JSON."""


def event_frame(event: Event) -> bytes:
    """An event on the wire."""
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


class ResponseWriter:
    """One response. `begin`, any number of `push`, and then one end: `Ended` pushed, `fail` or `cancel`.

    Each gives the events to send. After the end nothing more comes.
    """

    def __init__(self, known: dict[str, Any], clock: Callable[[], float]) -> None:
        """`known` is the response's `envelope`; `clock` gives Unix time."""
        self.status = Status.IN_PROGRESS
        self._known = known
        self._clock = clock
        self._sequence = 0
        self._done: list[Item] = []
        self._open: Growing | None = None
        self._waiting: tuple[TokenLogprobs, ...] = ()
        self._ended: Ended | None = None
        self._error: KolosalError | None = None
        self._completed_at: int | None = None

    @property
    def response_id(self) -> str:
        """The id of the response."""
        response_id: str = self._known["id"]
        return response_id

    @property
    def ended(self) -> bool:
        """Whether the response has its final status."""
        return self.status is not Status.IN_PROGRESS

    @property
    def output(self) -> tuple[Item, ...]:
        """The items so far, the one that still grows included."""
        return (*self._done, *(() if self._open is None else (self._open.item(Status.IN_PROGRESS),)))

    def response(self) -> dict[str, Any]:
        """The response as it is now."""
        return response_json(
            self._known,
            self.status,
            self.output,
            ended=self._ended,
            error=self._error,
            completed_at=self._completed_at,
        )

    def begin(self) -> list[Event]:
        """The first events."""
        return [self._lifecycle("response.created"), self._lifecycle("response.in_progress")]

    def push(self, event: ChatEvent) -> list[Event]:
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
                return [self._drafted(self._open, self._open.more(event.arguments))]
            case CallEnd():
                self._waiting = ()
                return self._close(Status.COMPLETED)
            case Ended():
                return self._finish(event)
            case _:
                assert_never(event)

    def fail(self, error: KolosalError) -> list[Event]:
        """The generation failed."""
        self._error = error
        return self._end(Status.FAILED, "response.failed")

    def cancel(self) -> list[Event]:
        """Nobody wants the rest. There is no event of that name: the response says so in its status."""
        return self._end(Status.CANCELLED, "response.incomplete")

    # --- items ---

    def _push_text(self, text: str, logprobs: tuple[TokenLogprobs, ...]) -> list[Event]:
        """More of the answer. Tokens that have made no character yet wait for the one that they are part of.

        Where a thought or a call comes in its place, they were that one's.
        """
        self._waiting += logprobs
        if not text:
            return []
        events = [] if isinstance(self._open, StreamedMessage) else self._begin(StreamedMessage())
        return [*events, *self._flush(text)]

    def _flush(self, text: str) -> list[Event]:
        """Text, and the tokens that waited for it, go to the open message."""
        opened, logprobs = self._open, self._waiting
        if not isinstance(opened, StreamedMessage) or not (text or logprobs):
            return []
        self._waiting = ()
        return [self._drafted(opened, opened.more(text, logprobs))]

    def _push_thought(self, text: str) -> list[Event]:
        self._waiting = ()
        if not text:
            return []
        opened, events = self._open, list[Event]()
        if not isinstance(opened, StreamedReasoning):
            opened = StreamedReasoning()
            events = self._begin(opened)
        return [*events, self._drafted(opened, opened.more(text))]

    def _begin(self, growing: Growing) -> list[Event]:
        events = self._close_for_next()
        self._open = growing
        return [
            *events,
            self._item_event("response.output_item.added", growing.empty()),
            *(self._drafted(growing, draft) for draft in growing.first()),
        ]

    def _close_for_next(self) -> list[Event]:
        """A call that nobody ended was cut off, whatever comes after it."""
        return self._close(Status.INCOMPLETE if isinstance(self._open, StreamedCall) else Status.COMPLETED)

    def _close(self, status: Status) -> list[Event]:
        growing = self._open
        if growing is None:
            return []
        item = growing.item(status)
        events = [self._drafted(growing, draft) for draft in growing.last()]
        events.append(self._item_event("response.output_item.done", item))
        self._open = None
        self._done.append(item)
        return events

    # --- the end ---

    def _finish(self, ended: Ended) -> list[Event]:
        self._ended = ended
        events = self._flush("")
        if not self.output:
            events = self._begin(StreamedMessage())
        if ended.finish_reason is FinishReason.LENGTH:
            return events + self._end(Status.INCOMPLETE, "response.incomplete")
        self._completed_at = int(self._clock())
        events += self._close_for_next()
        return events + self._end(Status.COMPLETED, "response.completed")

    def _end(self, status: Status, name: str) -> list[Event]:
        events = self._close(Status.INCOMPLETE)
        self.status = status
        return [*events, self._lifecycle(name)]

    # --- events ---

    def _lifecycle(self, name: str) -> Event:
        return self._event(name, response=self.response())

    def _item_event(self, name: str, item: Item) -> Event:
        return self._event(name, output_index=len(self._done), item=item_json(item))

    def _drafted(self, growing: Growing, draft: Draft) -> Event:
        name, values = draft
        return self._event(name, item_id=growing.id, output_index=len(self._done), **values)

    def _event(self, kind: str, /, **values: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **values}
        self._sequence += 1
        return event
