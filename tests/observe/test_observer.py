"""What is counted of generations, and what is told of them."""

from __future__ import annotations

import asyncio

import pytest

from kolosal.engines.stream import RequestStream
from kolosal.errors import ContextLengthExceeded, EngineDied
from kolosal.observe.context import REQUEST, RequestContext
from kolosal.observe.counts import Histogram, Outcome
from kolosal.observe.events import Event
from kolosal.observe.observer import EndedRequest, Observer
from kolosal.schema import FinishReason, TokenDelta, Usage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def observer(clock: Clock) -> Observer:
    return Observer(clock)


def stream_of(observer: Observer, engine_id: str = "a") -> RequestStream:
    return RequestStream(lambda: None, observer.begin(engine_id))


def events(observer: Observer) -> list[Event]:
    return [*observer.events.ring.last(1000).items]


async def test_a_generation_is_counted_as_it_goes(observer: Observer, clock: Clock) -> None:
    stream = stream_of(observer)
    clock.now += 0.5
    stream.put(TokenDelta("Hel", (1, 2), usage=Usage(7, 2, 4)))
    assert (observer.total.output_tokens, observer.total.prompt_tokens, observer.total.running) == (2, 7, 1)
    clock.now += 2
    stream.put(TokenDelta("lo", (3,), FinishReason.STOP, Usage(7, 3, 4)))
    for counts in (observer.total, observer.engines["a"]):
        assert (counts.prompt_tokens, counts.cached_tokens, counts.output_tokens) == (7, 4, 3)
        assert (counts.outcomes, counts.running) == ({Outcome.COMPLETED: 1}, 0)
        assert (counts.ttft.total, counts.output_s, counts.duration.total) == (0.5, 2.0, 2.5)


async def test_ends_are_told_apart_and_counted_once(observer: Observer) -> None:
    left, died, refused = (stream_of(observer) for _ in range(3))
    left.abort()
    left.fail(EngineDied("too late"))
    died.fail(EngineDied("x"))
    died.abort()
    refused.fail(ContextLengthExceeded("x"))
    assert observer.total.outcomes == {Outcome.CANCELLED: 1, Outcome.FAILED: 2}
    assert observer.total.errors == {"engine_died": 1, "context_length_exceeded": 1}


async def test_tokens_of_a_generation_that_is_given_up_count_too(observer: Observer) -> None:
    stream = stream_of(observer)
    stream.put(TokenDelta("abc", (1, 2, 3), usage=Usage(5, 3)))
    stream.abort()
    assert (observer.total.prompt_tokens, observer.total.output_tokens) == (5, 3)


async def test_events_have_the_request_id_and_no_text(observer: Observer) -> None:
    REQUEST.set(RequestContext("req-1"))
    stream = stream_of(observer)
    stream.put(TokenDelta("secret", (1,), FinishReason.STOP, Usage(5, 1)))
    started, ended = events(observer)
    assert (started.kind, started.data) == ("request.started", {"request_id": "req-1", "engine_id": "a"})
    assert (ended.kind, ended.data["request_id"], ended.data["outcome"]) == (
        "request.ended",
        "req-1",
        "completed",
    )
    assert ended.data["completion_tokens"] == 1
    assert "secret" not in str(ended)


async def test_states_progress_and_deaths(observer: Observer) -> None:
    observer.engine_state("a", "unloaded", None, None)
    observer.engine_state("a", "loading", "unloaded", None)
    for hundredth in range(1000):
        observer.load_progress("a", hundredth / 1000)
    observer.engine_state("a", "ready", "loading", None)
    observer.engine_state("a", "unloaded", "ready", "it crashed")
    kinds = [event.kind for event in events(observer)]
    assert kinds.count("engine.state") == 4
    assert kinds.count("engine.progress") <= 100
    assert events(observer)[-1].data["reason"] == "it crashed"
    assert (observer.engines["a"].loads, observer.engines["a"].deaths) == (1, 1)


async def test_a_removed_engine_is_forgotten_but_not_in_the_totals(observer: Observer) -> None:
    stream = stream_of(observer)
    observer.forget("a")
    stream.put(TokenDelta("", (1,), FinishReason.STOP, Usage(5, 1)))
    observer.engine_state("a", "closed", "ready", None)
    observer.call_ended("a", "embed", Outcome.COMPLETED, 7)
    assert observer.engines == {}
    assert (observer.total.output_tokens, observer.total.unary_calls) == (
        1,
        {("embed", Outcome.COMPLETED): 1},
    )


async def test_a_sink_that_fails_harms_nobody(observer: Observer) -> None:
    got: list[EndedRequest] = []

    def broken(_request: EndedRequest) -> None:
        raise RuntimeError("no network")

    observer.sinks += [broken, got.append]
    stream_of(observer).abort()
    assert [request.outcome for request in got] == [Outcome.CANCELLED]


async def test_ids_of_another_run_are_not_taken_for_ours(observer: Observer) -> None:
    await asyncio.sleep(0)
    observer.events.publish("x")
    ours = observer.events.id_of(1)
    assert observer.events.after_id(ours) == 1
    other = Observer()
    assert [other.events.after_id(given) for given in (ours, "", "-", "7", f"{ours}x")] == [None] * 5


def test_a_histogram_counts_a_value_on_a_bound_as_within() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert (histogram.buckets, histogram.count, histogram.total) == ([2, 1, 1], 4, 12.0)


async def test_when_to_come_back_follows_from_how_long_requests_took(
    observer: Observer, clock: Clock
) -> None:
    assert observer.place_free_in_s("a", 4) == 1
    for seconds in (20.0, 30.0):
        stream = stream_of(observer)
        clock.now += seconds
        stream.abort()
    assert (observer.place_free_in_s("a", 4), observer.place_free_in_s("a", 1)) == (7, 25)
    stream = stream_of(observer, "b")
    clock.now += 10_000
    stream.abort()
    assert observer.place_free_in_s("b", 1) == 60
