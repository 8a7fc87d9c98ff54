"""Observer: where engines tell what they do. Counts it, makes events of it, and hands ended requests on.

Owns the counts and the event log of one daemon. Engines call it synchronously on the event loop; nothing here waits, and
nothing here raises into an engine. Knows no prompt and no answer: it is given counts.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from kolosal.errors import KolosalError
from kolosal.observe.activity import ActivityLog, code_of
from kolosal.observe.context import REQUEST
from kolosal.observe.counts import Counts, Outcome
from kolosal.observe.events import EventLog, now_ms
from kolosal.observe.logtail import LogTail
from kolosal.schema import TokenDelta, Usage

log = logging.getLogger(__name__)

MAX_ENGINES = 2000
"""Engines whose counts are kept; those that were removed are forgotten first of all anyway."""

_PROGRESS_STEP = 0.01
"""Progress of a load is told in steps of a hundredth."""


@dataclass(frozen=True, slots=True)
class EndedRequest:
    """One generation, when it has ended."""

    engine_id: str
    request_id: str | None
    key_id: str | None
    """The API key that it was made with."""
    trace_parent: str | None
    outcome: Outcome
    error: str | None
    """The code of the error, where it failed."""
    usage: Usage
    started_ns: int
    """Unix time in nanoseconds."""
    ttft_s: float | None
    """Until the first token, waiting included; None: there was none."""
    duration_s: float


class Observer:
    """Used on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.events = EventLog()
        self.activity = ActivityLog(clock)
        self.log = LogTail()
        """The daemon's own log lines."""
        self.total = Counts()
        """Of all engines, also those that were removed."""
        self.engines: dict[str, Counts] = {}
        """By engine, while it is registered."""
        self.http: Counter[int] = Counter()
        """HTTP answers by status."""
        self.sinks: list[Callable[[EndedRequest], None]] = []
        """Each is called with every generation that has ended."""
        self.on_spent: Callable[[str, int], None] = lambda _key_id, _n_tokens: None
        """Told of tokens that were used with an API key, by its id."""
        self._told_progress: dict[str, float] = {}

    def close(self) -> None:
        """Let all who follow end."""
        self.events.close()
        self.activity.close()
        self.log.ring.close()

    # --- engines ---

    def engine_state(self, engine_id: str, state: str, before: str | None, reason: str | None) -> None:
        """An engine's state is another. `before` is None when it was just added."""
        data: dict[str, str | None] = {"engine_id": engine_id, "state": state}
        if before is not None:
            data["before"] = before
        if reason is not None and state not in ("ready", "loading"):
            data["reason"] = reason
        self.events.publish("engine.state", **data)
        self._told_progress.pop(engine_id, None)
        if state == "closed":
            return
        for counts in self._counts(engine_id):
            counts.loads += state == "ready"
            counts.deaths += before == "ready" and "reason" in data

    def load_progress(self, engine_id: str, fraction: float) -> None:
        """A load goes on."""
        if abs(fraction - self._told_progress.get(engine_id, 0.0)) >= _PROGRESS_STEP:
            self._told_progress[engine_id] = fraction
            self.events.publish("engine.progress", engine_id=engine_id, progress=round(fraction, 4))

    def replica_state(
        self, engine_id: str, replica_id: str, state: str, node: str | None, reason: str | None = None
    ) -> None:
        """A copy of an engine in a cluster is in another state; `node` is where it is, `reason` why it ended by itself."""
        data: dict[str, str | None] = {
            "engine_id": engine_id,
            "replica_id": replica_id,
            "state": state,
            "node": node,
        }
        if reason is not None:
            data["reason"] = reason
        self.events.publish("engine.replica", **data)

    def forget(self, engine_id: str) -> None:
        """An engine was removed. What it did stays in the totals."""
        self.engines.pop(engine_id, None)
        self._told_progress.pop(engine_id, None)
        self.events.publish("engine.removed", engine_id=engine_id)

    # --- requests ---

    def begin(self, engine_id: str) -> RequestWatch:
        """A generation was submitted."""
        now = self.clock()
        counts = self._counts(engine_id)
        for each in counts:
            each.started += 1
            each.first_at = now if each.first_at is None else each.first_at
        watch = RequestWatch(self, engine_id, counts, now)
        self.events.publish("request.started", request_id=watch.request_id, engine_id=engine_id)
        return watch

    def call_ended(self, engine_id: str, kind: str, outcome: Outcome, n_tokens: int) -> None:
        """A call that generates nothing (tokens, templates, embeddings, ranks) has ended; so many tokens were computed."""
        if (request := REQUEST.get()) is not None:
            request.call_tokens += n_tokens
            if request.key_id is not None and n_tokens:
                self.on_spent(request.key_id, n_tokens)
        for counts in (self.engines.get(engine_id), self.total):
            if counts is not None:
                counts.unary_calls[kind, outcome] += 1

    def place_free_in_s(self, engine_id: str, n_parallel: int) -> int:
        """After how many seconds a full engine has likely finished one of its requests: 1 to 60."""
        durations = self.engines.get(engine_id, self.total).duration
        mean = durations.total / durations.count if durations.count else 0.0
        return min(60, max(1, math.ceil(mean / max(1, n_parallel))))

    def answered(self, status: int) -> None:
        """An HTTP request was answered."""
        self.http[status] += 1

    def ended(self, request: EndedRequest) -> None:
        """A generation has ended: tell everyone. Called by its `RequestWatch`."""
        usage = request.usage
        data: dict[str, str | int | float | None] = {
            "request_id": request.request_id,
            "engine_id": request.engine_id,
            "outcome": request.outcome,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "ttft_ms": None if request.ttft_s is None else round(request.ttft_s * 1000, 1),
            "duration_ms": round(request.duration_s * 1000, 1),
        }
        if request.error is not None:
            data["error"] = request.error
        self.events.publish("request.ended", **data)
        if request.key_id is not None:
            self.on_spent(request.key_id, usage.prompt_tokens + usage.completion_tokens)
        for sink in self.sinks:
            try:
                sink(request)
            except Exception:
                log.exception("observer.sink_failed")

    def _counts(self, engine_id: str) -> tuple[Counts, Counts]:
        counts = self.engines.get(engine_id)
        if counts is None:
            while len(self.engines) >= MAX_ENGINES:
                del self.engines[next(iter(self.engines))]
            counts = self.engines[engine_id] = Counts()
        return counts, self.total


class RequestWatch:
    """One generation as it is counted. A stream calls it for each of its changes; what follows an end is ignored."""

    def __init__(
        self, observer: Observer, engine_id: str, counts: tuple[Counts, ...], started_at: float
    ) -> None:
        self.context = REQUEST.get()
        """The request that it is made for."""
        self.engine_id = engine_id
        self.started_at = started_at
        """This and the other times are on the observer's clock."""
        self.started_ns = time.time_ns()
        """Unix time."""
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.outcome: Outcome | None = None
        """None while it goes on."""
        self.error: KolosalError | None = None
        self._observer = observer
        self._counts = counts
        self._usage: Usage | None = None
        self._tokens = 0
        if self.context is not None and self.context.open_request is not None:
            self.context.open_request.watches.append(self)

    @property
    def request_id(self) -> str | None:
        """The id of the request."""
        return None if self.context is None else self.context.request_id

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        prompt = self._usage or Usage(0, 0)
        return Usage(prompt.prompt_tokens, self._tokens, prompt.cached_tokens)

    def delta(self, delta: TokenDelta) -> None:
        """Something came."""
        if self.outcome is not None:
            return
        if self.first_at is None and (delta.tokens or delta.text):
            self.first_at = self._observer.clock()
            for counts in self._counts:
                counts.ttft.add(self.first_at - self.started_at)
        if delta.usage is not None:
            self._count_usage(delta.usage)
        self._count_output(len(delta.tokens))
        if delta.finish_reason is not None:
            if delta.usage is not None:  # text may come without its tokens
                self._count_output(delta.usage.completion_tokens - self._tokens)
            self._end(Outcome.COMPLETED, None)

    def failed(self, error: KolosalError) -> None:
        """It ended with an error."""
        self._end(Outcome.FAILED, error)

    def cancelled(self) -> None:
        """Its client left."""
        self._end(Outcome.CANCELLED, None)

    def _count_usage(self, usage: Usage) -> None:
        before = self._usage or Usage(0, 0)
        for counts in self._counts:
            counts.prompt_tokens += usage.prompt_tokens - before.prompt_tokens
            counts.cached_tokens += max(0, usage.cached_tokens - before.cached_tokens)  # less after a crash
        self._usage = usage

    def _count_output(self, n_tokens: int) -> None:
        self._tokens += n_tokens
        for counts in self._counts:
            counts.output_tokens += n_tokens

    def _end(self, outcome: Outcome, error: KolosalError | None) -> None:
        if self.outcome is not None:
            return
        self.outcome, self.error = outcome, error
        now = self.ended_at = self._observer.clock()
        duration = now - self.started_at
        output_s = 0.0 if self.first_at is None else now - self.first_at
        code = None if error is None else code_of(error)
        for counts in self._counts:
            counts.outcomes[outcome] += 1
            if code is not None:
                counts.errors[code] += 1
            counts.duration.add(duration)
            counts.output_s += output_s
            if self._tokens > 1 and output_s > 0:
                counts.output_rate.add((self._tokens - 1) / output_s)
            counts.updated_ms = now_ms()
        context = self.context
        self._observer.ended(
            EndedRequest(
                engine_id=self.engine_id,
                request_id=self.request_id,
                key_id=None if context is None else context.key_id,
                trace_parent=None if context is None else context.trace_parent,
                outcome=outcome,
                error=code,
                usage=self.usage,
                started_ns=self.started_ns,
                ttft_s=None if self.first_at is None else self.first_at - self.started_at,
                duration_s=duration,
            )
        )
