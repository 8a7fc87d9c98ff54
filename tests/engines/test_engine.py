from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.state import EngineState
from kolosal.engines.stream import RequestStream
from kolosal.errors import ContextLengthExceeded, EngineDied, LoadFailed, NotFound, QueueFull
from kolosal.schema import FinishReason
from tests.engines.helpers import DEADLINE_S, config, eventually, gone, loaded
from tests.engines.worker.helpers import ask, counting

FakeWorker = Callable[..., WorkerCommand]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

SLOW = "step_s=0.005"
"""A step takes long enough for a test to act in the middle of an answer, however fast the machine."""


@pytest.fixture
def counted(tmp_path: Path, fake_worker: FakeWorker) -> tuple[WorkerCommand, Callable[[], int]]:
    """A worker command that counts how often it is started."""
    log = tmp_path / "starts"
    real = fake_worker()
    body = (
        f"import os, sys; open({str(log)!r}, 'a').write('x'); os.execv(sys.executable, {list(real.argv)!r})"
    )
    command = WorkerCommand((sys.executable, "-c", body), real.environment)
    return command, lambda: len(log.read_text()) if log.exists() else 0


async def first_delta(stream: RequestStream) -> str:
    return (await asyncio.wait_for(anext(stream), DEADLINE_S)).text


# --- answering ---


async def test_request_is_answered(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        completion = await engine.generate(ask("5:", max_tokens=8)).collect()

        assert (completion.text, completion.finish_reason) == ("6 7 8 9 ", FinishReason.LENGTH)


async def test_usage_is_true(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        usage = (await engine.generate(ask("5:", max_tokens=8)).collect()).usage

        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 8, 11)


async def test_eight_streams_at_once_are_each_answered_right(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW), config(n_parallel=4, n_ctx=200)) as engine:
        streams = [engine.generate(ask(f"{start}:", max_tokens=40)) for start in range(0, 800, 100)]
        texts = [completion.text for completion in await asyncio.gather(*(s.collect() for s in streams))]

        assert texts == [counting(start, 40) for start in range(0, 800, 100)]


async def test_request_at_fault_fails_with_its_own_error(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(), config(n_ctx=16)) as engine:
        with pytest.raises(ContextLengthExceeded, match="16 tokens"):
            await engine.generate(ask("far too long for this window")).ready()


async def test_ended_requests_are_not_in_flight(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await engine.generate(ask("5:", max_tokens=3)).collect()

        assert engine.in_flight == 0


async def test_request_tells_when_the_engine_was_used(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        before = time.time()
        await engine.generate(ask("5:", max_tokens=1)).collect()

        assert engine.last_used_at is not None
        assert before <= engine.last_used_at <= time.time()


async def test_engine_that_was_never_loaded_does_not_generate() -> None:
    with pytest.raises(EngineDied, match="not loaded"):
        Engine(config(), WorkerCommand()).generate(ask("5:"))


async def test_closed_engine_does_not_generate(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await engine.close()
        with pytest.raises(EngineDied):
            engine.generate(ask("5:"))


async def test_requests_beyond_the_queue_are_refused(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW), config(n_parallel=2), max_queued=1) as engine:
        for _ in range(3):
            engine.generate(ask("5:"))
        with pytest.raises(QueueFull, match="3 requests"):
            engine.generate(ask("5:"))


async def test_refused_request_frees_no_place_of_others(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW), config(n_parallel=1), max_queued=0) as engine:
        stream = engine.generate(ask("5:", max_tokens=20))
        with pytest.raises(QueueFull):
            engine.generate(ask("5:"))

        assert (await stream.collect()).text == counting(5, 20)


async def test_text_that_cannot_be_sent_leaves_no_request_behind(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        with pytest.raises(TypeError):
            engine.generate(ask("\ud800"))

        assert engine.in_flight == 0


# --- aborting ---


async def test_aborted_request_makes_room_at_once(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW), config(n_parallel=1), max_queued=0) as engine:
        engine.generate(ask("5:")).abort()

        assert (await engine.generate(ask("7:", max_tokens=4)).collect()).text == "8 9 "


async def test_abort_frees_the_worker_within_a_step(fake_worker: FakeWorker) -> None:
    """The one sequence id is taken by an answer of 100,000 tokens: the next request gets it only after the abort."""
    command = fake_worker(SLOW)
    async with loaded(command, config(n_parallel=1, n_ctx=100_000), max_queued=1) as engine:
        endless = engine.generate(ask("5:"))
        await first_delta(endless)
        endless.abort()

        await asyncio.wait_for(engine.generate(ask("7:", max_tokens=1)).collect(), DEADLINE_S)


async def test_frames_for_an_aborted_request_are_tolerated(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("step_s=0.001"), config(n_parallel=4)) as engine:
        pid = engine.worker_pid
        for _ in range(30):
            stream = engine.generate(ask("5:"))
            await first_delta(stream)
            stream.abort()
        await engine.generate(ask("5:", max_tokens=1)).collect()

        assert engine.worker_pid == pid


async def test_abort_that_meets_the_end_is_tolerated(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(), config(n_parallel=4)) as engine:
        pid = engine.worker_pid
        for turns in range(30):
            stream = engine.generate(ask("5:", max_tokens=2))
            for _ in range(turns):
                await asyncio.sleep(0)
            stream.abort()
        await engine.generate(ask("5:", max_tokens=1)).collect()

        assert engine.worker_pid == pid


async def test_abort_of_a_request_that_fails_is_tolerated(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(), config(n_ctx=16)) as engine:
        pid = engine.worker_pid
        engine.generate(ask("far too long for this window")).abort()
        await engine.generate(ask("5:", max_tokens=1)).collect()

        assert engine.worker_pid == pid


async def test_aborts_the_worker_confirmed_are_forgotten(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW)) as engine:
        engine.generate(ask("5:")).abort()
        await eventually(lambda: not engine._requests._aborted)


# --- loading ---


async def test_engine_loads_on_first_use(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        assert engine.state is EngineState.READY


async def test_engine_tells_what_it_got(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(), config(n_ctx=77)) as engine:
        assert engine.info is not None
        assert engine.info.n_ctx == 77


async def test_callers_at_once_share_one_load(counted: tuple[WorkerCommand, Callable[[], int]]) -> None:
    command, starts = counted
    engine = Engine(config(), command)
    try:
        await asyncio.gather(*(engine.ensure_ready() for _ in range(50)))
        assert starts() == 1
    finally:
        await engine.close()


async def test_caller_who_leaves_does_not_cancel_the_load_of_another(fake_worker: FakeWorker) -> None:
    engine = Engine(config(), fake_worker())
    leaver, stayer = (asyncio.create_task(engine.ensure_ready()) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    try:
        await stayer
        assert (leaver.cancelled(), engine.state) == (True, EngineState.READY)
    finally:
        await engine.close()


async def test_load_goes_on_when_its_only_caller_leaves(fake_worker: FakeWorker) -> None:
    engine = Engine(config(), fake_worker())
    leaver = asyncio.create_task(engine.ensure_ready())
    await asyncio.sleep(0)
    leaver.cancel()
    try:
        await eventually(lambda: engine.state is EngineState.READY)
    finally:
        await engine.close()


async def test_engine_tells_its_progress_while_loading(fake_worker: FakeWorker) -> None:
    engine = Engine(config(), fake_worker("load_hang"))
    caller = asyncio.create_task(engine.ensure_ready())
    await eventually(lambda: engine.load_progress == 0.5)
    state = engine.state
    await engine.close()
    await asyncio.wait([caller])
    with pytest.raises(NotFound):
        await caller

    assert state is EngineState.LOADING


async def test_failed_load_is_told_to_all_callers(fake_worker: FakeWorker) -> None:
    engine = Engine(config(), fake_worker("load_error"))
    results = await asyncio.gather(*(engine.ensure_ready() for _ in range(3)), return_exceptions=True)

    assert [type(result) for result in results] == [LoadFailed] * 3


async def test_failed_load_leaves_the_engine_unloaded_with_its_reason(fake_worker: FakeWorker) -> None:
    engine = Engine(config(), fake_worker("load_error"))
    with pytest.raises(LoadFailed):
        await engine.ensure_ready()

    assert (engine.state, engine.last_error) == (EngineState.UNLOADED, "the fake model is broken on purpose")


async def test_next_use_after_a_failed_load_tries_again(tmp_path: Path, fake_worker: FakeWorker) -> None:
    flag = tmp_path / "failed once"
    real = fake_worker()
    body = (
        f"import os, sys\nif not os.path.exists({str(flag)!r}):\n    open({str(flag)!r}, 'w'); sys.exit(1)\n"
        f"os.execv(sys.executable, {list(real.argv)!r})"
    )
    engine = Engine(config(), WorkerCommand((sys.executable, "-c", body), real.environment))
    with pytest.raises(LoadFailed):
        await engine.ensure_ready()
    try:
        await engine.ensure_ready()
        assert engine.last_error is None
    finally:
        await engine.close()


# --- the end ---


async def test_close_ends_the_worker(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        pid = engine.worker_pid or 0
        await engine.close()

        assert gone(pid)


async def test_close_is_idempotent(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await engine.close()
        await engine.close()

        assert engine.state is EngineState.CLOSED


async def test_two_may_close_at_once(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await asyncio.gather(engine.close(), engine.close())

        assert engine.state is EngineState.CLOSED


async def test_close_of_an_engine_that_was_never_loaded_does_nothing() -> None:
    await Engine(config(), WorkerCommand()).close()


async def test_close_fails_the_streams_that_run(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW)) as engine:
        stream = engine.generate(ask("5:"))
        await first_delta(stream)
        await engine.close()
        with pytest.raises(EngineDied):
            await stream.collect()


async def test_closed_engine_does_not_load_again(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await engine.close()
        with pytest.raises(NotFound, match="removed"):
            await engine.ensure_ready()


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
async def test_close_while_a_worker_is_started_leaves_no_process(fake_worker: FakeWorker, turns: int) -> None:
    engine = Engine(config(), fake_worker())
    caller = asyncio.create_task(engine.ensure_ready())
    for _ in range(turns):
        await asyncio.sleep(0)
    await engine.close()
    await asyncio.wait([caller])

    assert isinstance(caller.exception(), NotFound)


async def test_close_while_loading_tells_the_callers_that_it_was_removed(fake_worker: FakeWorker) -> None:
    engine = Engine(config(), fake_worker("load_hang"))
    callers = [asyncio.create_task(engine.ensure_ready()) for _ in range(3)]
    await eventually(lambda: engine.load_progress > 0)
    await engine.close()
    ends = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(end) for end in ends] == [NotFound] * 3


async def test_two_may_close_a_loading_engine_at_once(fake_worker: FakeWorker) -> None:
    engine = Engine(config(), fake_worker("load_hang"))
    caller = asyncio.create_task(engine.ensure_ready())
    await eventually(lambda: engine.load_progress > 0)
    first = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    await asyncio.gather(first, engine.close())
    await asyncio.wait([caller])

    assert isinstance(caller.exception(), NotFound)


async def test_drain_waits_for_running_streams(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW)) as engine:
        stream = engine.generate(ask("5:", max_tokens=30))
        await first_delta(stream)
        await engine.drain()

        assert engine.in_flight == 0
        assert (await stream.collect()).usage.completion_tokens == 30


async def test_draining_engine_takes_nothing_new(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await engine.drain()
        with pytest.raises(EngineDied):
            engine.generate(ask("5:"))


async def test_name_of_the_engine_is_its_configurations() -> None:
    assert Engine(EngineConfig("a b", "m.gguf", config().parameters), WorkerCommand()).engine_id == "a b"
