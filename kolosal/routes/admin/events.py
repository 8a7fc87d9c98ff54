"""What goes on, as it goes on: events of the daemon, and the log lines of an engine's worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from functools import partial
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.parameters import EngineId
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.observe.events import Event
from kolosal.observe.logtail import MAX_LINES
from kolosal.observe.ring import Batch, Ring
from kolosal.routes.common.engine_path import ENGINE
from kolosal.routes.common.journal_stream import event_named, journal_frames, journal_stream
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import registry_of

_PAUSE_S = 0.1
"""Between two pieces of a log: a worker that floods it costs little."""


class EventsQuery(BaseModel):
    """Which events."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    after: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The id of the last event the client has; the header `Last-Event-ID` is the same. Without it: only what is new."""
    follow: bool = True
    """False: the events that are kept, and then the end."""
    kinds: Annotated[str, Field(max_length=400)] | None = None
    """Only these, with commas between: `engine.state,engine.progress`. Without it: all."""


class LogsQuery(BaseModel):
    """Which lines."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    tail: Annotated[int, Field(ge=0, le=MAX_LINES)] = 100
    """How many of the last lines."""
    follow: bool = False
    """True: server-sent events, and all lines that come later too."""


class DaemonLog(TypedDict):
    """The last lines of a log."""

    lines: Sequence[str]
    dropped: int
    """Lines before these, kept or not."""


class EngineLog(DaemonLog):
    """The last lines of an engine's worker."""

    engine_id: str


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/events", follow_events),
        Route("/logs", show_daemon_log),
        Route(f"{ENGINE}/logs", show_logs),
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
    wanted = frozenset(filter(None, (query.kinds or "").split(",")))
    frames = journal_frames(log, last_id, partial(_frame_of, wanted=wanted), "events", follow=query.follow)
    return journal_stream(request, frames)


def _frame_of(event: Event, event_id: str, *, wanted: Collection[str]) -> bytes:
    if wanted and event.kind not in wanted:
        return b""
    return event_named(event.kind, {"time": event.time_ms, **event.data}, event_id)


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
        return journal_stream(request, _line_frames(engine.logs.ring, last))
    return JsonResponse({"engine_id": engine.engine_id, "lines": last.items, "dropped": last.first - 1})


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    query=LogsQuery,
    answer="The last lines of the daemon's own log; as events where `follow` is true.",
)
async def show_daemon_log(request: Request) -> JsonResponse[DaemonLog] | EventStream | PlainTextResponse:
    """What the daemon logged, at the level that `logging.level` says."""
    query = read_query(request, LogsQuery)
    ring = registry_of(request).observer.log.ring
    last = ring.last(query.tail)
    if query.follow:
        return journal_stream(request, _line_frames(ring, last))
    return JsonResponse({"lines": last.items, "dropped": last.first - 1})


async def _line_frames(ring: Ring[str], last: Batch[str]) -> AsyncGenerator[bytes, None]:
    yield _lines(last)
    async for batch in ring.follow(last.last, _PAUSE_S):
        yield (event_named("lines.lost", {"lost": batch.lost}) if batch.lost else b"") + _lines(batch)


def _lines(batch: Batch[str]) -> bytes:
    return b"".join(event_named("line", {"line": line}) for line in batch.items) or b": nothing yet\n\n"
