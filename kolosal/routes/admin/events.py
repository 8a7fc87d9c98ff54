"""What goes on, as it goes on: events of the daemon, and the log lines of an engine's worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.parameters import EngineId
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.observe.events import Event, EventLog
from kolosal.observe.logtail import MAX_LINES
from kolosal.observe.ring import Batch, Ring
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import registry_of
from kolosal.routes.openai.encode import error_frame


class EventsQuery(BaseModel):
    """Which events."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    after: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The id of the last event the client has; the header `Last-Event-ID` is the same. Without it: only what is new."""
    follow: bool = True
    """False: the events that are kept, and then the end."""


class LogsQuery(BaseModel):
    """Which lines."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tail: Annotated[int, Field(ge=0, le=MAX_LINES)] = 100
    """How many of the last lines."""
    follow: bool = False
    """True: server-sent events, and all lines that come later too."""


class EngineLog(TypedDict):
    """The last lines of an engine's worker."""

    engine_id: str
    lines: Sequence[str]
    dropped: int
    """Lines before these, kept or not."""


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/events", follow_events),
        Route("/engines/{engine_id}/logs", show_logs),
    )


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    query=EventsQuery,
    answer="Events: states of engines, progress of loads, starts and ends of requests. Ids and counts only.",
    media_type="text/event-stream",
)
async def follow_events(request: Request) -> EventStream | PlainTextResponse:
    """What happens in the daemon, as it happens. Ends when the daemon stops.

    A client that comes back says with `Last-Event-ID` where it was. One that reads too slowly loses the oldest events,
    and an `events.lost` says how many.
    """
    query = read_query(request, EventsQuery)
    log = registry_of(request).observer.events
    last_id = query.after or request.headers.get("last-event-id")
    return _stream(request, _event_frames(log, last_id, follow=query.follow))


async def _event_frames(log: EventLog, last_id: str | None, *, follow: bool) -> AsyncGenerator[bytes, None]:
    after = log.ring.newest if follow else 0
    if last_id is not None:
        found = log.after_id(last_id)
        after = found or 0
        if found is None:
            yield _frame("events.lost", {"lost": None})  # it is of another run: nobody knows how many
            after = log.ring.oldest - 1
    yield _frame("hello", {}, log.id_of(after))
    if not follow:
        yield _events(log, log.ring.after(after, log.ring.newest or 1))
        return
    async for batch in log.ring.follow(after):
        yield _events(log, batch)


def _events(log: EventLog, batch: Batch[Event]) -> bytes:
    frames = [_frame("events.lost", {"lost": batch.lost})] if batch.lost else []
    for number, event in enumerate(batch.items, batch.first):
        frames.append(_frame(event.kind, {"time": event.time_ms, **event.data}, log.id_of(number)))
    return b"".join(frames)


@Operation(
    group=Group.ENGINES,
    scope=Access.ADMIN,
    path={"engine_id": EngineId},
    query=LogsQuery,
    answer="The last lines that the engine's worker wrote to stderr; as events where `follow` is true.",
)
async def show_logs(request: Request) -> JsonResponse[EngineLog] | EventStream | PlainTextResponse:
    """What an engine's worker said: mostly llama.cpp, about the model. Also of workers that have ended."""
    query = read_query(request, LogsQuery)
    engine = registry_of(request).get(request.path_params["engine_id"])
    last = engine.logs.ring.last(query.tail)
    if query.follow:
        return _stream(request, _line_frames(engine.logs.ring, last))
    return JsonResponse({"engine_id": engine.engine_id, "lines": last.items, "dropped": last.first - 1})


async def _line_frames(ring: Ring[str], last: Batch[str]) -> AsyncGenerator[bytes, None]:
    yield _lines(last)
    async for batch in ring.follow(last.last):
        yield (_frame("lines.lost", {"lost": batch.lost}) if batch.lost else b"") + _lines(batch)


def _lines(batch: Batch[str]) -> bytes:
    return b"".join(_frame("line", {"line": line}) for line in batch.items) or b": nothing yet\n\n"


def _stream(request: Request, frames: AsyncGenerator[bytes, None]) -> EventStream | PlainTextResponse:
    if request.method == "HEAD":  # a body that nobody gets would never end
        return PlainTextResponse(media_type="text/event-stream")
    # readers are positions: when one ends, nothing runs on that must be stopped
    return EventStream(frames, lambda: None, error_frame)


def _frame(kind: str, data: Mapping[str, object], event_id: str | None = None) -> bytes:
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {kind}\n".encode() + b"data: " + orjson.dumps(data) + b"\n\n"
