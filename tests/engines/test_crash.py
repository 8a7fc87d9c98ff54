"""A worker that dies, hangs or cannot be trusted: another one goes on with what was in flight."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Rendered, Tokenize
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import MAX_FRAME_BYTES, SequenceOutput, StepOutputs, UnaryResult, encode
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.restart import BreakerState
from kolosal.engines.state import EngineState
from kolosal.engines.stream import RequestStream
from kolosal.errors import EngineDied, LoadFailed
from kolosal.schema import FinishReason, Grammar, GrammarKind, TokenDelta, Usage
from tests.engines.helpers import (
    DEADLINE_S,
    config,
    eventually,
    gone,
    in_turn,
    loaded,
    process_of,
    recent_deaths,
    script_worker,
    starts,
)
from tests.engines.worker.helpers import ask, counting
from tests.settings import with_settings

FakeWorker = Callable[..., WorkerCommand]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

SLOW = "step_s=0.005"
"""A step takes long enough for a test to act in the middle of an answer, however fast the machine."""

HANG_S = 2.0
"""A worker that is silent for so long hangs, also on a machine that has much else to do."""

AT_ONCE = (0.0,)
"""Restarts without pauses."""


async def first_delta(stream: RequestStream) -> str:
    return (await asyncio.wait_for(anext(stream), DEADLINE_S)).text


async def text_of(stream: RequestStream) -> str:
    return (await asyncio.wait_for(stream.collect(), 3 * DEADLINE_S)).text


def kill(engine: Engine) -> None:
    """SIGKILL, or what there is of it."""
    assert engine.worker_pid is not None
    os.kill(engine.worker_pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


# --- streams go on ---


@pytest.mark.fault("P1")
async def test_killed_streams_go_on_where_they_were(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW), config(n_parallel=4, n_ctx=200), max_queued=64) as engine:
        streams = [engine.generate(ask(f"{100 * index}:", max_tokens=40)) for index in range(32)]
        await first_delta(streams[0])
        first_text = asyncio.ensure_future(text_of(streams[1]))
        kill(engine)
        texts = await asyncio.gather(*(text_of(stream) for stream in streams[2:]))

        assert await first_text == counting(100, 40)
        assert texts == [counting(100 * index, 40) for index in range(2, 32)]
        assert (engine.in_flight, engine.state, recent_deaths(engine)) == (0, EngineState.READY, 1)


@pytest.mark.parametrize("step", [1, 2, 3, 9, 20])
async def test_text_is_that_of_an_undisturbed_run(tmp_path: Path, fake_worker: FakeWorker, step: int) -> None:
    command = in_turn(tmp_path, fake_worker(f"crash@{step}"), fake_worker())
    async with loaded(command) as engine:
        completion = await engine.generate(ask("5:", max_tokens=20)).collect()

        assert (completion.text, completion.usage) == (counting(5, 20), Usage(3, 20))
        assert starts(tmp_path) == 2


@pytest.mark.fault("R1")
async def test_a_request_whose_grammar_was_being_compiled_is_not_begun_again(
    tmp_path: Path, fake_worker: FakeWorker
) -> None:
    command = in_turn(tmp_path, fake_worker(SLOW, "compile_crash"), fake_worker())
    async with loaded(command, config(n_parallel=4)) as engine:
        other = engine.generate(ask("5:", max_tokens=40))
        begun = await first_delta(other)
        grammar = Grammar(GrammarKind.REGEX, "[0-9 ]*")
        hostile = engine.generate(replace(ask("1:"), grammar=grammar))
        with pytest.raises(EngineDied, match="stopped while it compiled the grammar of this request"):
            await text_of(hostile)

        assert begun + await text_of(other) == counting(5, 40)
        await eventually(lambda: starts(tmp_path) == 2)  # the other one may have ended before


async def test_text_held_back_for_a_stop_string_survives(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = in_turn(tmp_path, fake_worker("crash@6"), fake_worker())
    async with loaded(command, config(speculation=False)) as engine:
        completion = await engine.generate(ask("<say>abcabcabd</say>", stop=("abcabd",))).collect()

        assert (completion.text, completion.stop) == ("abc", "abcabd")
        assert starts(tmp_path) == 2


async def test_each_token_is_delivered_once(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = in_turn(tmp_path, fake_worker("crash@8"), fake_worker())
    async with loaded(command) as engine:
        deltas = [delta async for delta in engine.generate(ask("5:", max_tokens=20, logprobs=0))]

        tokens = [token for delta in deltas for token in delta.tokens]
        assert bytes(tokens).decode() == counting(5, 20)
        assert [each.chosen.token for delta in deltas for each in delta.logprobs] == tokens


@pytest.mark.fault("P1")
@posix
async def test_kill_costs_another_engine_no_token(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker(SLOW)) as dying, loaded(fake_worker(SLOW)) as living:
        other = asyncio.ensure_future(text_of(living.generate(ask("5:", max_tokens=60))))
        doomed = dying.generate(ask("5:", max_tokens=30))
        pid = living.worker_pid
        text = await first_delta(doomed)
        kill(dying)

        assert text + await text_of(doomed) == counting(5, 30)
        assert (await other, living.worker_pid) == (counting(5, 60), pid)


async def test_request_that_kills_its_worker_twice_fails(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("crash@2")) as engine:
        with pytest.raises(
            EngineDied,
            match=r"stopped while it was answering, 2 times in a row\. The worker stopped: exit status 3",
        ):
            await text_of(engine.generate(ask("5:")))

        assert (engine.in_flight, engine.last_error) == (0, "The worker stopped: exit status 3")


@pytest.mark.fault("P1")
async def test_second_death_ends_all_streams_at_once(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = replace(in_turn(tmp_path, fake_worker("crash@9"), fake_worker(SLOW)), restart_delays_s=AT_ONCE)
    async with loaded(command, config(n_parallel=4, n_ctx=2000), max_queued=64) as engine:
        streams = [engine.generate(ask("5:")) for _ in range(32)]
        collecting = [asyncio.ensure_future(text_of(stream)) for stream in streams]
        await eventually(lambda: starts(tmp_path) == 2 and engine.state is EngineState.READY)
        kill(engine)
        ends = await asyncio.gather(*collecting, return_exceptions=True)

        assert [type(end) for end in ends] == [EngineDied] * 32


async def test_deltas_before_the_last_death_are_delivered(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("crash@5")) as engine:
        stream = engine.generate(ask("5:"))
        pieces = []

        async def read() -> None:
            async for delta in stream:
                pieces.append(delta.text)  # noqa: PERF401 - it ends with an error

        with pytest.raises(EngineDied):
            await asyncio.wait_for(read(), DEADLINE_S)
        assert "".join(pieces) == counting(5, 8)  # four of each worker


async def test_request_after_a_crash_is_none_of_the_old_ones(tmp_path: Path, fake_worker: FakeWorker) -> None:
    """Only those that were in flight at both deaths fail."""
    command = replace(in_turn(tmp_path, *[fake_worker(SLOW)] * 3), restart_delays_s=AT_ONCE)
    async with loaded(command, config(n_parallel=4, n_ctx=2000)) as engine:
        old = engine.generate(ask("5:"))
        await first_delta(old)
        kill(engine)
        await eventually(lambda: starts(tmp_path) == 2 and engine.state is EngineState.READY)
        new = engine.generate(ask("7:", max_tokens=30))
        text = await first_delta(new)
        kill(engine)

        with pytest.raises(EngineDied):
            await text_of(old)
        assert text + await text_of(new) == counting(7, 30)


async def test_idle_engine_starts_again_with_the_next_use_only(
    tmp_path: Path, fake_worker: FakeWorker
) -> None:
    async with loaded(in_turn(tmp_path, fake_worker())) as engine:
        kill(engine)
        await eventually(lambda: engine.state is EngineState.UNLOADED)
        assert (engine.worker_pid, starts(tmp_path)) == (None, 1)
        await engine.ensure_ready()

        assert await text_of(engine.generate(ask("5:", max_tokens=1))) == "6"


async def test_call_is_made_again(tmp_path: Path) -> None:
    dies = script_worker("ready(); hear(); os._exit(9)")
    answers = script_worker(
        f"ready(); hear(); say({encode(UnaryResult(1, Rendered('x', 1)))!r}); until_the_end()"
    )
    async with loaded(in_turn(tmp_path, dies, answers)) as engine:
        assert await asyncio.wait_for(engine.call(Tokenize("a")), DEADLINE_S) == Rendered("x", 1)


async def test_call_is_made_again_once(tmp_path: Path) -> None:
    command = in_turn(tmp_path, script_worker("ready(); hear(); os._exit(9)"))
    async with loaded(command) as engine:
        with pytest.raises(EngineDied, match="exit status 9"):
            await asyncio.wait_for(engine.call(Tokenize("a")), DEADLINE_S)

        assert (starts(tmp_path), engine.in_flight) == (2, 0)


async def test_deaths_are_logged(fake_worker: FakeWorker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with loaded(fake_worker("crash@1")) as engine:
        with pytest.raises(EngineDied):
            await text_of(engine.generate(ask("5:")))

    assert [record.message for record in caplog.records].count("engine.died") == 2


# --- while there is no worker ---


def restarting(folder: Path, fake_worker: FakeWorker) -> WorkerCommand:
    """The first worker dies at its fourth step, the second never gets ready."""
    return in_turn(folder, fake_worker("crash@4"), fake_worker("load_hang"))


async def until_restarting(folder: Path, engine: Engine) -> None:
    await eventually(lambda: starts(folder) == 2 and engine.state is EngineState.LOADING)


async def test_client_who_leaves_during_a_restart_frees_everything(
    tmp_path: Path, fake_worker: FakeWorker
) -> None:
    async with loaded(restarting(tmp_path, fake_worker)) as engine:
        stream = engine.generate(ask("5:"))
        await until_restarting(tmp_path, engine)
        stream.abort()

        assert engine.in_flight == 0


async def test_what_was_left_is_not_submitted_again(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = in_turn(tmp_path, fake_worker("crash@4", SLOW), fake_worker())
    async with loaded(command, config(n_parallel=2)) as engine:
        left, kept = (engine.generate(ask(f"{start}:", max_tokens=20)) for start in (5, 7))
        await eventually(lambda: engine.state is EngineState.LOADING)
        left.abort()

        assert await text_of(kept) == counting(7, 20)
        assert engine._requests._aborted == set()


async def test_close_ends_a_restart(tmp_path: Path, fake_worker: FakeWorker) -> None:
    async with loaded(restarting(tmp_path, fake_worker)) as engine:
        stream = engine.generate(ask("5:"))
        await until_restarting(tmp_path, engine)
        await asyncio.wait_for(engine.close(), DEADLINE_S)
        with pytest.raises(EngineDied, match="shut down"):
            await text_of(stream)


async def test_unload_ends_a_restart(tmp_path: Path, fake_worker: FakeWorker) -> None:
    async with loaded(restarting(tmp_path, fake_worker)) as engine:
        stream = engine.generate(ask("5:"))
        await until_restarting(tmp_path, engine)
        await asyncio.wait_for(engine.unload(), DEADLINE_S)
        with pytest.raises(EngineDied, match="unloaded"):
            await text_of(stream)

        assert (engine.state, engine.in_flight) == (EngineState.UNLOADED, 0)


async def test_close_ends_the_pause_before_a_restart(fake_worker: FakeWorker) -> None:
    command = replace(fake_worker("crash@4"), restart_delays_s=(3600.0,))
    async with loaded(command) as engine:
        stream = engine.generate(ask("5:"))
        await eventually(lambda: engine.state is EngineState.LOADING)
        await asyncio.wait_for(engine.close(), DEADLINE_S)
        with pytest.raises(EngineDied, match="shut down"):
            await text_of(stream)


async def test_draining_engine_goes_on_with_what_it_has(tmp_path: Path, fake_worker: FakeWorker) -> None:
    async with loaded(in_turn(tmp_path, fake_worker("crash@4", SLOW), fake_worker())) as engine:
        stream = engine.generate(ask("5:", max_tokens=20))
        await asyncio.wait_for(engine.drain(), DEADLINE_S)

        assert await text_of(stream) == counting(5, 20)
        assert engine.state is EngineState.CLOSED


async def test_shutdown_does_not_wait_for_a_restart(tmp_path: Path, fake_worker: FakeWorker) -> None:
    registry = EngineRegistry(restarting(tmp_path, fake_worker))
    engine = await registry.add(config(), load=True)
    stream = engine.generate(ask("5:"))
    await until_restarting(tmp_path, engine)
    await asyncio.wait_for(registry.close(drain_s=0.1), DEADLINE_S)

    with pytest.raises(EngineDied, match="shut down"):
        await text_of(stream)


async def test_requests_that_come_meanwhile_wait(tmp_path: Path, fake_worker: FakeWorker) -> None:
    async with loaded(in_turn(tmp_path, fake_worker("crash@4"), fake_worker())) as engine:
        old = engine.generate(ask("5:", max_tokens=20))
        await eventually(lambda: engine.state is not EngineState.READY)
        await asyncio.wait_for(engine.ensure_ready(), DEADLINE_S)

        assert await text_of(engine.generate(ask("7:", max_tokens=9))) == counting(7, 9)
        assert await text_of(old) == counting(5, 20)
        assert starts(tmp_path) == 2


# --- the breaker ---


async def test_load_that_fails_during_a_restart_is_tried_again(
    tmp_path: Path, fake_worker: FakeWorker
) -> None:
    command = in_turn(tmp_path, fake_worker("crash@4"), fake_worker("load_crash"), fake_worker())
    async with loaded(replace(command, restart_delays_s=AT_ONCE)) as engine:
        assert await text_of(engine.generate(ask("5:", max_tokens=20))) == counting(5, 20)
        assert starts(tmp_path) == 3


@pytest.mark.fault("P8")
async def test_crash_loop_opens_the_breaker(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = in_turn(tmp_path, fake_worker(), fake_worker("stderr=no luck today", "load_crash"))
    async with loaded(replace(command, restart_delays_s=AT_ONCE)) as engine:
        stream = engine.generate(ask("5:"))
        await first_delta(stream)
        kill(engine)
        with pytest.raises(EngineDied, match=r"keeps stopping .* \(its last words: no luck today\)") as error:
            await text_of(stream)
        with pytest.raises(EngineDied, match="keeps stopping"):
            await engine.ensure_ready()

        assert 50 <= (error.value.retry_after_s or 0) <= 60
        assert (engine.breaker.state(time.monotonic()), recent_deaths(engine), starts(tmp_path)) == (
            BreakerState.OPEN,
            5,
            5,
        )
        assert (engine.state, engine.in_flight) == (EngineState.UNLOADED, 0)


@pytest.mark.fault("P8")
async def test_loads_that_keep_failing_are_no_storm(tmp_path: Path, fake_worker: FakeWorker) -> None:
    engine = Engine(config(), replace(in_turn(tmp_path, fake_worker("load_crash")), restart_delays_s=AT_ONCE))
    errors = []
    for _ in range(10):
        with pytest.raises((LoadFailed, EngineDied)) as error:
            await engine.ensure_ready()
        errors.append(error.type)

    assert (errors, starts(tmp_path)) == ([LoadFailed] * 5 + [EngineDied] * 5, 5)


async def test_engine_whose_breaker_is_reset_starts_at_once(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = in_turn(tmp_path, fake_worker("load_crash"), fake_worker("load_crash"), fake_worker())
    engine = Engine(config(), with_settings(command, max_crashes=2))
    for kind in (LoadFailed, LoadFailed, EngineDied):
        with pytest.raises(kind):
            await engine.ensure_ready()
    engine.reset_breaker()
    try:
        await engine.ensure_ready()
        assert (engine.state, engine.breaker.state(time.monotonic())) == (
            EngineState.READY,
            BreakerState.CLOSED,
        )
    finally:
        await engine.close()


async def test_resetting_the_breaker_ends_the_pause(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = replace(in_turn(tmp_path, fake_worker("crash@4"), fake_worker()), restart_delays_s=(3600.0,))
    async with loaded(command) as engine:
        stream = engine.generate(ask("5:", max_tokens=20))
        await eventually(lambda: engine.state is EngineState.LOADING)
        await asyncio.sleep(0)
        engine.reset_breaker()

        assert await text_of(stream) == counting(5, 20)


async def test_stopping_on_purpose_is_no_death(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await engine.unload()

        assert (recent_deaths(engine), engine.last_error) == (0, None)


# --- a worker that hangs ---


@pytest.mark.fault("P3")
async def test_hang_is_noticed_and_survived(tmp_path: Path, fake_worker: FakeWorker) -> None:
    command = in_turn(tmp_path, fake_worker("hang@5"), fake_worker())
    async with loaded(with_settings(command, step_timeout_s=HANG_S)) as engine:
        pid = engine.worker_pid or 0

        assert await text_of(engine.generate(ask("5:", max_tokens=20))) == counting(5, 20)
        assert gone(pid)


@pytest.mark.fault("P3")
@posix
async def test_stopped_worker_is_killed_in_time(
    fake_worker: FakeWorker, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    """P3: SIGSTOP; nothing is in flight, so nothing else would tell."""
    async with loaded(with_settings(fake_worker(), step_timeout_s=1.0)) as engine:
        os.kill(engine.worker_pid or 0, signal.SIGSTOP)
        started = time.monotonic()
        await eventually(lambda: engine.state is EngineState.UNLOADED)

        took_s = time.monotonic() - started
        assert took_s < 1 + sized(30, 2)
        assert engine.last_error == "The worker stopped: it gave no sign of life for 1 seconds"
        seen(f"noticed after {took_s:.2f} s with a step timeout of 1 s")


@posix
async def test_worker_that_cannot_be_killed_is_left_behind(
    tmp_path: Path, fake_worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is stuck in a driver. Nothing waits for it."""
    monkeypatch.setattr("kolosal.engines.ipc.process._EXIT_AFTER_KILL_S", 0.2)
    command = in_turn(tmp_path, fake_worker(SLOW), fake_worker())
    async with loaded(with_settings(command, step_timeout_s=HANG_S)) as engine:
        worker = process_of(engine)
        kill_really = worker._process.kill
        monkeypatch.setattr(worker._process, "kill", lambda: None)
        monkeypatch.setattr(worker._process, "terminate", lambda: None)
        try:
            stream = engine.generate(ask("5:", max_tokens=20))
            text = await first_delta(stream)
            os.kill(worker.pid, signal.SIGSTOP)
            assert text + await text_of(stream) == counting(5, 20)
            assert not gone(worker.pid)
        finally:
            kill_really()
            await worker._process.wait()


async def test_idle_worker_is_left_alone(fake_worker: FakeWorker) -> None:
    async with loaded(with_settings(fake_worker(), step_timeout_s=HANG_S)) as engine:
        worker = process_of(engine)
        await eventually(lambda: worker._pongs >= 3)

        assert engine._worker is worker


async def test_busy_worker_is_left_alone(fake_worker: FakeWorker) -> None:
    async with loaded(with_settings(fake_worker("step_s=0.15"), step_timeout_s=HANG_S)) as engine:
        assert await text_of(engine.generate(ask("5:", max_tokens=20))) == counting(5, 20)
        assert recent_deaths(engine) == 0


async def test_time_in_which_the_daemon_stood_still_does_not_count(fake_worker: FakeWorker) -> None:
    async with loaded(with_settings(fake_worker(), step_timeout_s=HANG_S)) as engine:
        worker = process_of(engine)
        await eventually(lambda: worker._pongs >= 1)
        time.sleep(HANG_S + 0.5)  # noqa: ASYNC251 - as a laptop does that is closed and opened again
        pongs = worker._pongs
        await eventually(lambda: worker._pongs > pongs + 2)

        assert engine._worker is worker


# --- a worker that cannot be trusted ---


def step(request_id: int, delta: TokenDelta) -> bytes:
    return encode(StepOutputs((SequenceOutput(request_id, delta),)))


END = step(1, TokenDelta("!", (1,), FinishReason.STOP, Usage(1, 2)))

UNEXPECTED: dict[str, bytes | None] = {
    "output of no request": step(77, TokenDelta("x")),
    "failure of no request": b'{"tag":"failed","request_id":77,"error":"GenerationFailed","message":"x"}\n',
    "result of no call": b'{"tag":"result","request_id":1,"result":{"text":"x","n_tokens":1,"kind":"rendered"}}\n',
    "second ready": None,
    "progress": b'{"tag":"progress","fraction":0.5}\n',
    "garbage": b"this is no frame\n",
    "unknown tag": b'{"tag":"shell","command":"x"}\n',
    "half a frame": b'{"tag":"step","outp',
    "fatal": b'{"tag":"fatal","message":"out of cells"}\n',
    "too many tokens": step(1, TokenDelta("x", tuple(range(65)))),
    "a token that is none": step(1, TokenDelta("x", (-1,))),
    "a token beyond all": step(1, TokenDelta("x", (2**40,))),
    "too much text": step(1, TokenDelta("x" * 5000, (1,))),
}


def says(*lines: bytes | None) -> WorkerCommand:
    """A worker that answers a request with these lines; None is its own `ready` frame."""
    said = "; ".join(f"say({'sys.argv[1].encode()' if line is None else repr(line)})" for line in lines)
    return script_worker(f"ready(); hear(); {said}; until_the_end()")


@pytest.mark.fault("P5")
@pytest.mark.parametrize("what", UNEXPECTED)
async def test_worker_that_says_the_unexpected_is_replaced(tmp_path: Path, what: str) -> None:
    closing = "; os.close(1)" if what == "half a frame" else ""
    first = (
        says(UNEXPECTED[what])
        if not closing
        else script_worker(f"ready(); hear(); say({UNEXPECTED[what]!r}){closing}; time.sleep(3600)")
    )
    async with loaded(in_turn(tmp_path, first, says(END))) as engine:
        pid = engine.worker_pid or 0
        assert await text_of(engine.generate(ask("5:"))) == "!"
        assert gone(pid)
        assert (starts(tmp_path), recent_deaths(engine)) == (2, 1)


@pytest.mark.fault("P5")
async def test_nothing_that_follows_is_believed(tmp_path: Path) -> None:
    for index, line in enumerate(
        [b"garbage\n", step(77, TokenDelta("x")), b'{"tag":"fatal","message":"x"}\n']
    ):
        folder = tmp_path / str(index)
        folder.mkdir()
        lies = says(step(1, TokenDelta("a", (1,))), line + step(1, TokenDelta("lie", (1,))) + END)
        async with loaded(in_turn(folder, lies, says(END))) as engine:
            assert await text_of(engine.generate(ask("5:"))) == "a!"


@pytest.mark.fault("P5")
async def test_endless_line_costs_bounded_memory(tmp_path: Path) -> None:
    endless = script_worker("ready(); hear()\nwhile True: say(b'x' * 1_000_000)")
    before = psutil.Process().memory_info().rss
    async with loaded(in_turn(tmp_path, endless, says(END))) as engine:
        assert await text_of(engine.generate(ask("5:"))) == "!"
        assert psutil.Process().memory_info().rss - before < 3 * MAX_FRAME_BYTES


@pytest.mark.fault("P5")
async def test_frames_without_end_cost_no_memory(tmp_path: Path) -> None:
    """Each is well-formed; all together are more than an answer can be."""
    line = step(1, TokenDelta("x" * 900))
    floods = script_worker(f"ready(); hear()\nwhile True: say({line!r} * 100)")
    async with loaded(in_turn(tmp_path, floods, says(END))) as engine:
        assert await text_of(engine.generate(ask("5:"))) == "x" * 900 + "!"
        assert recent_deaths(engine) == 1


async def test_worker_that_lies_twice_fails_the_request() -> None:
    async with loaded(says(b"x\n")) as engine:
        with pytest.raises(EngineDied, match="broke the protocol"):
            await text_of(engine.generate(ask("5:")))


async def test_what_was_sent_is_what_is_gone_on_with(tmp_path: Path) -> None:
    """The second worker is told the tokens of the first, and quotes them."""
    quotes = script_worker(
        """
        import json
        ready()
        told = json.loads(hear())
        text = "".join(map(str, told["generated"]))
        say(json.dumps({"tag": "step", "outputs": [{"request_id": told["request_id"], "delta":
            {"text": text, "tokens": [1], "finish_reason": "stop", "usage": {"prompt_tokens": 1, "completion_tokens": 4}}}]}).encode() + b"\\n")
        until_the_end()
        """
    )
    first = script_worker(
        f"ready(); hear(); say({step(1, TokenDelta('a', (7, 8)))!r}); say({step(1, TokenDelta('', (9,)))!r}); os._exit(1)"
    )
    async with loaded(in_turn(tmp_path, first, quotes)) as engine:
        assert await text_of(engine.generate(ask("5:"))) == "a789"


async def test_unknown_error_of_a_worker_is_a_failed_generation() -> None:
    line = b'{"tag":"failed","request_id":1,"error":"SystemExit","message":"x"}\n'
    async with loaded(says(line)) as engine:
        with pytest.raises(Exception, match="x") as failure:
            await text_of(engine.generate(ask("5:")))

        assert failure.type.__name__ == "GenerationFailed"


async def test_request_that_is_longer_than_a_frame_is_refused(fake_worker: FakeWorker) -> None:
    """It would look like a broken protocol to the worker, and end it."""
    async with loaded(fake_worker()) as engine:
        with pytest.raises(Exception, match="bytes") as error:
            engine.generate(ask("x" * 17_000_000))
        assert (error.type.__name__, engine.in_flight) == ("PayloadTooLarge", 0)

        assert await text_of(engine.generate(ask("5:", max_tokens=1))) == "6"


# --- the reason ---


@pytest.mark.fault("M2")
@posix
async def test_worker_that_the_kernel_ended_for_its_memory_says_so(
    tmp_path: Path, fake_worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 5\noom_kill 3\n")
    monkeypatch.setattr("kolosal.engines.ipc.process_posix._KERNEL_COUNTERS", counters)
    async with loaded(fake_worker()) as engine:
        counters.write_text("pgfault 5\noom_kill 4\n")
        kill(engine)
        await eventually(lambda: engine.last_error is not None)

        assert (
            engine.last_error
            == "The worker stopped: killed by SIGKILL, because the machine was out of memory"
        )


@posix
async def test_worker_that_somebody_killed_says_so(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        kill(engine)
        await eventually(lambda: engine.last_error is not None)

        assert (
            engine.last_error
            == "The worker stopped: killed by SIGKILL, possibly because the system ran out of memory"
        )
