"""Activity: the last requests for inference, and those that go on. For operators only: it tells who asked for what, and when."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.errors import NotFound
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.observe.activity import ActivityLog, ActivityRow
from kolosal.observe.counts import Outcome
from kolosal.routes.common.journal_stream import event_named, journal_frames, journal_stream
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import registry_of

_PAUSE_S = 0.25
"""Between two frames of who follows: a thousand requests a second are few large pieces, and nobody reads faster."""

_ENTRY_BYTES = 400
"""About so long is a row as JSON."""

_NAMES = tuple(field.name for field in fields(ActivityRow))
_VALUES = attrgetter(*_NAMES)

_Word = Annotated[str, Field(min_length=1, max_length=128)]


class ActivityQuery(BaseModel):
    """Which requests."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    limit: Annotated[int, Field(ge=0, le=10_000)] = 100
    """How many of the last ones. With `follow` they are not sent; only what is new."""
    before: _Word | None = None
    """The id of a row: only those before it."""
    after: _Word | None = None
    """With `follow`: the id of the last row the client has; the header `Last-Event-ID` is the same."""
    follow: bool = False
    """True: server-sent events, one for each request that ends."""
    model: _Word | None = None
    key: _Word | None = None
    """The name of an API key."""
    dialect: _Word | None = None
    outcome: Outcome | None = None

    def wants(self, row: ActivityRow) -> bool:
        """Whether a row is one of those."""
        asked = (self.model, self.key, self.dialect, self.outcome)
        found = (row.model, row.key, row.dialect, row.outcome)
        return all(want is None or want == have for want, have in zip(asked, found, strict=True))


class ActivityEntry(TypedDict):
    """One request."""

    id: str | None
    """Of the row, for `before`, `after` and `/v1/activity/{id}`; null while the request goes on."""
    time: int
    """When it came: Unix time in milliseconds."""
    request_id: str | None
    dialect: str
    path: str
    model: str | None
    key: str | None
    """The name of its API key."""
    status: int
    """HTTP status; 0 where the client left before there was one."""
    outcome: Outcome
    error: str | None
    """The code of its error."""
    message: str | None
    """What its client was told, in words."""
    prompt_tokens: int
    cached_tokens: int
    """How many of `prompt_tokens` were found in the KV cache."""
    completion_tokens: int
    ttft_ms: float | None
    """Until the first token, waiting included."""
    duration_ms: float
    tokens_per_s: float | None
    """Tokens out for each second from the first one on."""
    captured: bool
    """Whether its bodies were kept."""


class Activity(TypedDict):
    """What is asked of the engines."""

    capturing: bool
    """Whether bodies of requests and answers are kept: `activity.capture_bytes`."""
    running: Sequence[ActivityEntry]
    """Requests that go on, the oldest first."""
    requests: Sequence[ActivityEntry]
    """Those that have ended, the newest first."""
    total: int
    """How many there have been since the start, kept or not."""
    last_id: str
    """For `after`: what comes after this answer."""


class CapturedRequest(ActivityEntry):
    """One request, with what was sent and answered where that was kept."""

    request_body: str | None
    response_body: str | None
    cut: bool
    """Whether a body was longer than what is kept of one."""


def routes() -> list[Route]:
    """The paths of this module."""
    return [Route("/v1/activity", show_activity), Route("/v1/activity/{id}", show_request)]


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    query=ActivityQuery,
    answer="Requests that go on, and the last ones that ended; as events where `follow` is true.",
)
async def show_activity(request: Request) -> JsonResponse[Activity] | EventStream | PlainTextResponse:
    """Who asked which model for what, how many tokens that took, how fast, and how it ended. No prompts and no answers."""
    query = read_query(request, ActivityQuery)
    log = registry_of(request).observer.activity
    if query.follow:
        last_id = query.after or request.headers.get("last-event-id")
        return journal_stream(request, _frames(log, last_id, query))
    rows = islice(
        (
            (number, row)
            for number, row in log.ring.newest_first(_number(log, query.before))
            if query.wants(row)
        ),
        query.limit,
    )
    found = [(log.id_of(number), row) for number, row in rows]
    running = [row for row in log.running() if query.wants(row)]
    captures, total = log.captures, log.ring.newest

    def answer() -> JsonResponse[Activity]:
        return JsonResponse(
            {
                "capturing": captures,
                "running": [_entry(row, None) for row in running],
                "requests": [_entry(row, row_id) for row_id, row in found],
                "total": total,
                "last_id": log.id_of(total),
            }
        )

    return await in_thread_if_large(len(found) * _ENTRY_BYTES, answer)


def _frames(log: ActivityLog, last_id: str | None, query: ActivityQuery) -> AsyncGenerator[bytes, None]:
    def frame_of(row: ActivityRow, row_id: str) -> bytes:
        return event_named("request", _entry(row, row_id), row_id) if query.wants(row) else b""

    return journal_frames(log, last_id, frame_of, "requests", follow=True, pause_s=_PAUSE_S)


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    answer="The request, with its bodies where `captured` is true and they are still kept.",
)
async def show_request(request: Request) -> JsonResponse[CapturedRequest]:
    """One request that has ended. Bodies are kept only where `activity.capture_bytes` is set."""
    log = registry_of(request).observer.activity
    row_id = request.path_params["id"]
    number = _number(log, row_id) or 0
    kept = log.ring.after(number - 1, 1).items if number >= log.ring.oldest else ()
    if not kept or log.id_of(number) != row_id:
        raise NotFound(f"No request has the id {row_id[:60]!r}, or it is no longer kept", param="id")
    bodies = log.bodies(number)
    return JsonResponse(
        {
            **_entry(kept[0], row_id),
            "request_body": None if bodies is None else bodies.sent.decode(errors="replace"),
            "response_body": None if bodies is None else bodies.answered.decode(errors="replace"),
            "cut": bodies is not None and bodies.cut,
        }
    )


def _number(log: ActivityLog, row_id: str | None) -> int | None:
    """The number of a row; 0 for one of another run."""
    return None if row_id is None else log.after_id(row_id) or 0


def _entry(row: ActivityRow, row_id: str | None) -> ActivityEntry:
    # dataclasses.asdict copies deeply, which takes ten times as long, and there may be ten thousand rows
    return {"id": row_id, **dict(zip(_NAMES, _VALUES(row), strict=True))}  # type: ignore[typeddict-item]
