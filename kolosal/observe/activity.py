"""Activity: the last requests for inference as an operator looks at them: whose, which model, how many tokens, how fast, how they ended.

Owns the rows, which are bounded, and, where a setting asks for it, bodies, which are bounded in bytes. A row is made when a
request ends, or what was asked for over a WebSocket. Knows no prompt and no answer but in captured bodies, which are off by
default.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from kolosal.errors import KolosalError, error_row
from kolosal.observe.context import REQUEST, RequestContext
from kolosal.observe.counts import Outcome, ratio
from kolosal.observe.events import now_ms
from kolosal.observe.journal import Journal

if TYPE_CHECKING:
    from kolosal.observe.observer import RequestWatch

MAX_REQUESTS = 10_000
"""Rows that are kept unless a setting says otherwise."""

MAX_BODY_BYTES = 256 * 1024
"""Bytes of one captured body; what is beyond is left out."""

_MAX_MESSAGE_CHARS = 300
_MAX_NAME_CHARS = 128

_CLIENT_LEFT = frozenset({0, 499})
"""Statuses of requests whose client did not wait for an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRow:
    """One request that has ended."""

    time: int
    """When it came: Unix time in milliseconds."""
    request_id: str | None
    dialect: str
    """The API that it spoke."""
    path: str
    model: str | None
    key: str | None
    """The name of its API key; null where no keys are used."""
    status: int
    """HTTP status; 0 where the client left before there was one, or there is none."""
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
    """Until the first token, waiting included; null: there was none."""
    duration_ms: float
    tokens_per_s: float | None
    """Tokens out for each second from the first one on; null where there were fewer than two."""
    captured: bool = False
    """Whether its bodies were kept."""


@dataclass(slots=True)
class CapturedBodies:
    """What a client sent and was sent, as far as it is kept."""

    sent: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    cut: bool = False
    """Whether something was too long."""

    def add(self, body: bytearray, piece: bytes) -> None:
        """Add what came to one of the two."""
        room = MAX_BODY_BYTES - len(body)
        body += piece[:room]
        self.cut = self.cut or len(piece) > room

    @property
    def n_bytes(self) -> int:
        return len(self.sent) + len(self.answered)


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A request that goes on."""

    context: RequestContext
    started_ms: int
    started_at: float
    """On the monotonic clock."""
    watches: list[RequestWatch] = field(default_factory=list)
    """Its generations."""
    bodies: CapturedBodies | None = None


class ActivityLog(Journal[ActivityRow]):
    """The requests of one daemon. Used on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(MAX_REQUESTS)
        self._clock = clock
        self._open: dict[int, OpenRequest] = {}
        self._bodies: OrderedDict[int, CapturedBodies] = OrderedDict()
        self._body_bytes = 0
        self._capture_bytes = 0

    def set_limits(self, *, requests: int, capture_bytes: int) -> None:
        """How many rows, and how many bytes of bodies, are kept; no bytes: no bodies."""
        self.ring.resize(requests)
        self._capture_bytes = capture_bytes
        self._drop_bodies()

    @property
    def captures(self) -> bool:
        """Whether bodies are kept."""
        return self._capture_bytes > 0

    # --- as requests come and go ---

    def begin(self, context: RequestContext) -> OpenRequest:
        """A request came."""
        opened = OpenRequest(context, now_ms(), self._clock())
        if self.captures:
            opened.bodies = CapturedBodies()
        context.open_request = self._open[id(opened)] = opened
        return opened

    def end(self, context: RequestContext, status: int, *, complete: bool) -> None:
        """A request has ended; `complete`: its whole answer was sent. Does nothing for one that did not `begin`."""
        opened, context.open_request = context.open_request, None
        if opened is None:
            return
        del self._open[id(opened)]
        outcome, error = _outcome(opened, status, complete=complete)
        row = self._row(opened, status, outcome, error)
        self.ring.append(row)
        if opened.bodies is not None:
            self._keep_bodies(self.ring.newest, opened.bodies)

    @contextmanager
    def part(self, request_id: str) -> Iterator[None]:
        """What is done in this block is a request of its own within the one at hand: one of many over a WebSocket."""
        around = REQUEST.get()
        context = RequestContext(request_id) if around is None else replace(around, request_id=request_id)
        token = REQUEST.set(context)
        self.begin(context)
        complete = False
        try:
            yield
            complete = True
        finally:
            REQUEST.reset(token)
            status = HTTPStatus.OK if context.error is None else error_row(context.error).status
            self.end(context, status, complete=complete)

    # --- looking ---

    def running(self) -> list[ActivityRow]:
        """Requests that go on, the oldest first, as they are now."""
        return [self._row(each, 0, Outcome.RUNNING, None) for each in self._open.values()]

    def bodies(self, number: int) -> CapturedBodies | None:
        """The bodies of the row of that number, where they are kept."""
        return self._bodies.get(number)

    def _keep_bodies(self, number: int, bodies: CapturedBodies) -> None:
        self._bodies[number] = bodies
        self._body_bytes += bodies.n_bytes
        self._drop_bodies()

    def _drop_bodies(self) -> None:
        """The oldest go, also those whose rows are gone."""
        while self._bodies and (
            self._body_bytes > self._capture_bytes or next(iter(self._bodies)) < self.ring.oldest
        ):
            self._body_bytes -= self._bodies.popitem(last=False)[1].n_bytes

    def _row(
        self, opened: OpenRequest, status: int, outcome: Outcome, error: KolosalError | None
    ) -> ActivityRow:
        context, now = opened.context, self._clock()
        prompt, cached, output = context.call_tokens, 0, 0
        first_at: float | None = None
        last_at = opened.started_at
        model = context.model
        for watch in opened.watches:
            usage = watch.usage
            prompt, cached, output = (
                prompt + usage.prompt_tokens,
                cached + usage.cached_tokens,
                output + usage.completion_tokens,
            )
            model = watch.engine_id
            if watch.first_at is not None:
                first_at = watch.first_at if first_at is None else min(first_at, watch.first_at)
                last_at = max(last_at, now if watch.ended_at is None else watch.ended_at)
        return ActivityRow(
            time=opened.started_ms,
            request_id=context.request_id,
            dialect=context.dialect,
            path=context.path,
            model=None if model is None else model[:_MAX_NAME_CHARS],
            key=context.key_name,
            status=status,
            outcome=outcome,
            error=None if error is None else code_of(error),
            message=None if error is None else error.message[:_MAX_MESSAGE_CHARS],
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=output,
            ttft_ms=None if first_at is None else round((first_at - opened.started_at) * 1000, 1),
            duration_ms=round((now - opened.started_at) * 1000, 1),
            tokens_per_s=None if first_at is None or output < 2 else ratio(output - 1, last_at - first_at),
            captured=opened.bodies is not None,
        )


def code_of(error: KolosalError) -> str:
    """The code of an error, as it is counted and shown."""
    row = error_row(error)
    return row.openai_code or row.openai_type


def _outcome(opened: OpenRequest, status: int, *, complete: bool) -> tuple[Outcome, KolosalError | None]:
    if status in _CLIENT_LEFT or not complete:
        return Outcome.CANCELLED, None
    failed = opened.context.error or next((each.error for each in opened.watches if each.error), None)
    if failed is not None or status >= 400:
        return Outcome.FAILED, failed
    return Outcome.COMPLETED, None
