"""Long prompts are read in the prefill context, and everybody else's steps go on between its layers.

A target time of 0 makes a step due after every layer, whatever the machine.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kolosal.engines.ipc.messages import Ping, Pong
from kolosal.engines.worker.backend import BackendError
from kolosal.engines.worker.layer_slices import LayerSlices
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.schedule.kv_cache import IntegrityError
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.schema import FinishReason
from tests.engines.worker.helpers import InProcessWorker, RecordingBackend, ask, counting
from tests.fake_worker.backend import N_LAYERS

LONG = "a long prompt " * 40

N_APART = len(LONG + "70:") - 1
"""Tokens that are read apart of it: neither the first one, whose cell is the stream's, nor the last."""


class Interrupted(RecordingBackend):
    """A fake that does something before the second layer of each chunk in its prefill context."""

    def __init__(self, *faults: str, **parameters: Any) -> None:
        super().__init__(*faults, **{"n_ctx": 1000, "n_parallel": 4} | parameters)
        self.interrupt: Callable[[], None] = lambda: None
        self.n_given_up = 0
        self.given_back = threading.Event()

    def prefill(self, chunk: Chunk, between_layers: Callable[[], bool]) -> bool:
        interrupts = iter([self.interrupt])

        def between() -> bool:
            goes_on = between_layers()
            next(interrupts, lambda: None)()
            return goes_on

        computed = super().prefill(chunk, between)
        self.n_given_up += not computed
        return computed

    def close_prefill_context(self) -> None:
        super().close_prefill_context()
        self.given_back.set()


class Reading:
    """A worker with a stream, and a long prompt beside it whose first chunk is about to be read."""

    def __init__(self, backend: Interrupted | None = None) -> None:
        self.backend = backend or Interrupted()
        self.worker = InProcessWorker(
            self.backend, speculation=False, target_step_s=0, after_step=self.check_books
        )
        self.stream = self.worker.submit(ask("5:", max_tokens=200))
        self.worker.step()
        self.long = self.worker.submit(ask(LONG + "70:", max_tokens=6))

    def check_books(self) -> None:
        self.worker.loop._cache.check_integrity(self.backend.cells)

    def n_streamed(self) -> int:
        return len(self.worker.answers[self.stream].tokens)

    def check(self) -> None:
        """Everybody gets the answer it gets alone."""
        self.worker.run()
        self.worker.check_idle()
        assert self.worker.answers[self.stream].text == counting(5, 200)
        answer = self.worker.answers[self.long]
        assert answer.text == counting(70, 6)
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(LONG) + 4, 6)


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_streams_take_a_step_between_any_two_layers(reading: Reading) -> None:
    before = reading.n_streamed()
    reading.worker.step()

    assert len(reading.backend.prefills) == 1
    assert reading.n_streamed() - before == 1 + N_LAYERS
    reading.check()


def test_all_of_the_prompt_but_its_last_token_is_read_apart(reading: Reading) -> None:
    reading.check()

    assert sum(reading.backend.prefills) == N_APART


def test_what_comes_between_layers_is_heard_there(reading: Reading) -> None:
    pongs: list[bool] = []

    def ping() -> None:
        pongs.append(Pong(7) in reading.worker.frames)
        reading.worker.loop.ping(Ping(7))

    reading.backend.interrupt = ping
    reading.worker.step()

    assert (pongs, Pong(7) in reading.worker.frames) == ([False], True)


def test_short_prompt_that_comes_between_layers_is_answered_there(reading: Reading) -> None:
    short: list[int] = []

    def submit() -> None:
        if not short:
            short.append(reading.worker.submit(ask("40:", max_tokens=2)))

    reading.backend.interrupt = submit
    reading.worker.step()
    reading.worker.step()

    assert reading.worker.answers[short[0]].text == "41"
    assert not reading.worker.answers[reading.long].tokens
    reading.check()


def test_prompt_that_is_aborted_between_layers_is_read_no_further(reading: Reading) -> None:
    reading.worker.step()
    reading.backend.interrupt = lambda: reading.worker.abort(reading.long)
    reading.worker.step()
    n_read = reading.backend.prefills[0]
    again = reading.worker.answer(ask(LONG + "70:", max_tokens=6))

    assert reading.worker.answers[reading.long].finish_reason is FinishReason.ABORT
    assert again.text == counting(70, 6)
    assert again.usage is not None
    assert again.usage.cached_tokens == 1 + n_read, "what was read before the abort serves the next"


def test_streams_may_end_between_layers(reading: Reading) -> None:
    reading.backend.interrupt = lambda: reading.worker.abort(reading.stream)
    reading.worker.run()
    reading.worker.check_idle()

    assert reading.worker.answers[reading.long].text == counting(70, 6)


def test_equal_prompt_that_comes_meanwhile_shares_what_was_read(reading: Reading) -> None:
    reading.worker.step()
    later = reading.worker.submit(ask(LONG + "80:", max_tokens=6))
    reading.check()
    usage = reading.worker.answers[later].usage

    assert reading.worker.answers[later].text == counting(80, 6)
    assert usage is not None
    assert usage.cached_tokens >= len(LONG)
    assert sum(reading.backend.prefills) < 2 * len(LONG)


def test_prompt_whose_beginning_is_there_is_read_from_there_on(reading: Reading) -> None:
    reading.check()
    stream = reading.worker.submit(ask("9:", max_tokens=100))
    reading.worker.step()
    reading.backend.prefills.clear()
    turn = reading.worker.submit(ask(LONG + "70:" + "and more " * 30 + "3:", max_tokens=4))
    reading.worker.run()

    assert sum(reading.backend.prefills) <= 9 * 30 + 3
    assert [reading.worker.answers[each].text for each in (stream, turn)] == [counting(9, 100), "4 5 "]


@pytest.mark.parametrize("fault", ["prefill@1", "prefill@3"])
def test_prompt_that_the_prefill_context_cannot_read_is_read_in_steps(fault: str) -> None:
    reading = Reading(Interrupted(fault))
    reading.check()

    assert len(reading.backend.prefills) == int(fault[8])


def test_prompt_that_is_longer_than_the_prefill_context_goes_on_in_steps() -> None:
    backend = Interrupted()
    backend.prefill_cells = 300
    reading = Reading(backend)
    reading.check()

    assert 0 < sum(reading.backend.prefills) < 300


def test_memory_that_cannot_be_cut_has_no_prefill_context() -> None:
    reading = Reading(Interrupted("reuse=whole"))
    reading.check()

    assert not reading.backend.prefills


def test_prompt_alone_is_read_in_steps() -> None:
    backend = Interrupted()
    worker = InProcessWorker(backend, target_step_s=0)

    assert worker.answer(ask(LONG + "70:", max_tokens=6)).text == counting(70, 6)
    assert not backend.prefills


@pytest.mark.parametrize("error", [IntegrityError("scripted"), BackendError("scripted")])
def test_what_fails_between_layers_ends_the_engine(reading: Reading, error: Exception) -> None:
    def fail() -> None:
        raise error

    reading.backend.interrupt = fail
    with pytest.raises(type(error)):
        reading.worker.step()


def test_prompt_is_preempted_between_layers_where_streams_need_its_cells() -> None:
    backend = Interrupted(n_parallel=3, n_ctx=610, kv_pool_tokens=620)
    worker = InProcessWorker(backend, speculation=False, target_step_s=0)
    streams = [worker.submit(ask("5:", max_tokens=300)) for _ in range(2)]
    worker.step()
    long = worker.submit(ask(LONG + "70:", max_tokens=6))
    worker.run()
    worker.check_idle()

    assert backend.n_given_up == 1
    assert [worker.answers[each].text for each in streams] == [counting(5, 300)] * 2
    assert worker.answers[long].text == counting(70, 6)


def test_an_idle_engine_gives_the_prefill_context_back_whatever_pings_come() -> None:
    backend, now = Interrupted(), itertools.count(step=40)
    loop = EngineLoop(backend, lambda _: None, keep_prefill_context_s=100, clock=lambda: next(now))
    for number in range(5):
        loop.ping(Ping(number))
        loop.step()
    thread = threading.Thread(target=loop.run)
    thread.start()

    assert backend.given_back.wait(10)
    loop.stop()
    thread.join(10)


@pytest.mark.fault("M3")
def test_hundreds_of_long_and_short_requests_under_pressure_are_all_right() -> None:
    """Everything at once: sharing, priorities, aborts in steps and between layers, preemption, failing reads, no room."""
    chance = random.Random(12)  # noqa: S311 - a test's order, not a secret
    faults = [f"decode@{step}=1" for step in range(50, 9000, 97)]
    faults += [f"prefill@{number}" for number in range(7, 2000, 31)]
    backend = Interrupted(*faults, n_ctx=600, n_parallel=6, kv_pool_tokens=1500, n_batch=256)
    worker = InProcessWorker(
        backend, target_step_s=0, after_step=lambda: worker.loop._cache.check_integrity(backend.cells)
    )
    starts: dict[int, int] = {}
    aborted: set[int] = set()

    def abort_one() -> None:
        victim = chance.randint(1, len(starts))
        if chance.random() < 0.1 and not worker.answers[victim].ended:
            aborted.add(victim)
            worker.abort(victim)

    backend.interrupt = abort_one
    while len(starts) < 400 or worker.busy:
        if len(starts) < 400 and len(worker.loop._scheduler.waiting) < 8:
            start = chance.randrange(10_000)
            beginning = chance.choice(["", "You count. ", LONG[:300], LONG[:450], chance.choice("xyz") * 400])
            request = ask(f"{beginning}{start}:", max_tokens=chance.randint(1, 60))
            request = replace(request, priority=chance.randint(0, 1), use_cache=chance.random() < 0.7)
            starts[worker.submit(request)] = start
        worker.step()
    worker.check_idle()
    assert backend.closes == [1] * 400
    assert len(backend.prefills) > 200, "few were read apart, so this test shows little"
    for request_id, answer in worker.answers.items():
        assert answer.endings == 1
        assert answer.text == counting(starts[request_id], len(answer.text))
        assert answer.finish_reason is FinishReason.LENGTH or request_id in aborted


def due_after(layer_s: float, step_s: float, *, target_step_s: float, n_layers: int = 12) -> list[int]:
    """After which layers a step is taken, when each takes so long."""
    now = 0.0
    slices = LayerSlices(target_step_s, lambda: now)
    due = []
    for layer in range(n_layers):
        now += layer_s
        is_due = slices.pause()
        if is_due:
            due.append(layer)
            now += step_s
        slices.resume(stepped=is_due)
    assert slices.mean_s == pytest.approx(layer_s)
    return due


@pytest.mark.parametrize(
    ("layer_s", "step_s", "due"),
    [
        (0.06, 0.01, [2, 5, 8, 11]),  # 0.18 is nearer to 0.16 than 0.12
        (0.05, 0.01, [2, 5, 8, 11]),
        (0.50, 0.01, [*range(12)]),
        (0.06, 0.30, [2, 7]),  # the prompt has as much time as the streams
        (0.10, 9.00, [1, 7]),  # but no more than four times the target
    ],
)
def test_a_step_is_due_about_when_the_target_time_has_passed(
    layer_s: float, step_s: float, due: list[int]
) -> None:
    assert due_after(layer_s, step_s, target_step_s=0.16) == due
