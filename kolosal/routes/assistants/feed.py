"""RunFeed: the events of a run on their way to the one client that streams it. The run never waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import cast

import orjson

from kolosal.assistants.objects import RunStepObject
from kolosal.assistants.searches import shown_step
from kolosal.assistants.writer import RunEvent
from kolosal.errors import KolosalError
from kolosal.http.responses import error_body

_DONE = b"event: done\ndata: [DONE]\n\n"
_DELTA = "thread.message.delta"


class RunFeed:
    """Text that a slow reader has not taken is put together, so that what waits is never more than the answer."""

    def __init__(self, *, with_content: bool = False) -> None:
        """`with_content`: whether steps have the texts that searches found."""
        self._with_content = with_content
        self._events: deque[RunEvent] = deque()
        self._error: KolosalError | None = None
        self._closed = False
        self._wanted = True
        self._changed = asyncio.Event()

    def put(self, events: Iterable[RunEvent]) -> None:
        """Add events. Nothing happens once the reader has left."""
        if not self._wanted:
            return
        for event in map(self._shown, events):
            if event.name == _DELTA and self._events and self._events[-1].name == _DELTA:
                self._events[-1] = _joined(self._events[-1], event)
            else:
                self._events.append(event)
        self._changed.set()

    def close(self, error: KolosalError | None = None) -> None:
        """No event follows; the error is why, where it is not the run's own. Idempotent."""
        if not self._closed:
            self._closed, self._error = True, error
            self._changed.set()

    def leave(self) -> None:
        """The reader has left. Idempotent."""
        self._wanted = False
        self._events.clear()

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The events as frames, to the end.

        Raises:
            KolosalError: what the feed was closed with.
        """
        while True:
            while self._events:
                event = self._events.popleft()
                yield b"event: %b\ndata: %b\n\n" % (event.name.encode(), orjson.dumps(event.data))
            if self._closed:
                break
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error
        yield _DONE

    def _shown(self, event: RunEvent) -> RunEvent:
        if event.data["object"] != "thread.run.step":
            return event
        step = cast("RunStepObject", event.data)
        return RunEvent(event.name, shown_step(step, with_content=self._with_content))


def error_event(error: KolosalError) -> bytes:
    """An error that is none of the run's, as the official clients raise it."""
    return b"event: error\ndata: %b\n\n" % orjson.dumps(error_body(error))


def _joined(one: RunEvent, other: RunEvent) -> RunEvent:
    """Two pieces of one message's text as one."""
    one_text, other_text = (event.data["delta"]["content"][0]["text"] for event in (one, other))
    text = {key: one_text[key] + other_text[key] for key in ("value", "annotations")}
    part = {"index": 0, "type": "text", "text": text}
    return RunEvent(_DELTA, {**one.data, "delta": {"content": [part]}})
