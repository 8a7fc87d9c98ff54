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

from kolosal.errors import KolosalError, error_row
from kolosal.observe.context import REQUEST_ID, TRACE_PARENT
from kolosal.observe.counts import Counts, Outcome
from kolosal.observe.events import EventLog, now_ms
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
        self.total = Counts()
        """Of all engines, also those that were removed."""
        self.engines: dict[str, Counts] = {}
        """By engine, while it is registered."""
        self.http: Counter[int] = Counter()
        """HTTP answers by status."""
        self.sinks: list[Callable[[EndedRequest], None]] = []
        """Each is called with every generation that has ended."""
        self._told_progress: dict[str, float] = {}

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

    def call_ended(self, engine_id: str, kind: str, outcome: Outcome) -> None:
        """A call that generates nothing (tokens, templates, embeddings, ranks) has ended."""
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
        self.request_id = REQUEST_ID.get()
        self._trace_parent = TRACE_PARENT.get()
        self._observer = observer
        self._engine_id = engine_id
        self._counts = counts
        self._started_at = started_at
        self._started_ns = time.time_ns()
        self._first_at: float | None = None
        self._usage: Usage | None = None
        self._tokens = 0
        self._ended = False

    def delta(self, delta: TokenDelta) -> None:
        """Something came."""
        if self._ended:
            return
        if self._first_at is None and (delta.tokens or delta.text):
            self._first_at = self._observer.clock()
            for counts in self._counts:
                counts.ttft.add(self._first_at - self._started_at)
        if delta.usage is not None:
            self._count_usage(delta.usage)
        self._count_output(len(delta.tokens))
        if delta.finish_reason is not None:
            if delta.usage is not None:  # text may come without its tokens
                self._count_output(delta.usage.completion_tokens - self._tokens)
            self._end(Outcome.COMPLETED, None)

    def failed(self, error: KolosalError) -> None:
        """It ended with an error."""
        self._end(Outcome.FAILED, error_row(error).openai_code or error_row(error).openai_type)

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

    def _end(self, outcome: Outcome, error: str | None) -> None:
        if self._ended:
            return
        self._ended = True
        now = self._observer.clock()
        duration = now - self._started_at
        for counts in self._counts:
            counts.outcomes[outcome] += 1
            if error is not None:
                counts.errors[error] += 1
            counts.duration.add(duration)
            counts.output_s += 0.0 if self._first_at is None else now - self._first_at
            counts.updated_ms = now_ms()
        prompt = self._usage or Usage(0, 0)
        self._observer.ended(
            EndedRequest(
                engine_id=self._engine_id,
                request_id=self.request_id,
                trace_parent=self._trace_parent,
                outcome=outcome,
                error=error,
                usage=Usage(prompt.prompt_tokens, self._tokens, prompt.cached_tokens),
                started_ns=self._started_ns,
                ttft_s=None if self._first_at is None else self._first_at - self._started_at,
                duration_s=duration,
            )
        )
