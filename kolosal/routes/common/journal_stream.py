"""Server-sent events of a journal: where a reader begins, what it missed, and what comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from kolosal.http.sse import EventStream
from kolosal.observe.journal import Journal
from kolosal.observe.ring import Batch
from kolosal.routes.openai.encode import error_frame

T = TypeVar("T")


def event_named(kind: str, data: Mapping[str, object] | object, event_id: str | None = None) -> bytes:
    """One event as a frame."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {kind}\n".encode() + b"data: " + orjson.dumps(data) + b"\n\n"


def journal_stream(request: Request, frames: AsyncGenerator[bytes, None]) -> EventStream | PlainTextResponse:
    """An answer of these frames. Nothing must be stopped when it ends: readers are positions."""
    if request.method == "HEAD":  # a body that nobody gets would never end
        return PlainTextResponse(media_type="text/event-stream")
    return EventStream(frames, lambda: None, error_frame)


async def journal_frames(
    journal: Journal[T],
    last_id: str | None,
    frame_of: Callable[[T, str], bytes],
    name: str,
    *,
    follow: bool,
    pause_s: float = 0.0,
) -> AsyncGenerator[bytes, None]:
    """`hello`, then the items that follow the one of that id, without an id those that are new.

    Items for which `frame_of` gives nothing are left out. `name` is for the event that says how many were lost. Without `follow`
    those that are kept, and then the end. `pause_s` as for `Ring.follow`.
    """
    ring = journal.ring
    after = ring.newest if follow else 0
    if last_id is not None:
        found = journal.after_id(last_id)
        after = found or 0
        if found is None:
            yield event_named(f"{name}.lost", {"lost": None})  # it is of another run: nobody knows how many
            after = ring.oldest - 1
    yield event_named("hello", {}, journal.id_of(after))

    def frames(batch: Batch[T]) -> bytes:
        lost = event_named(f"{name}.lost", {"lost": batch.lost}) if batch.lost else b""
        numbered = enumerate(batch.items, batch.first)
        return lost + b"".join(frame_of(item, journal.id_of(number)) for number, item in numbered)

    if not follow:
        yield frames(ring.after(after, ring.newest or 1))
        return
    async for batch in ring.follow(after, pause_s):
        if content := frames(batch):
            yield content
