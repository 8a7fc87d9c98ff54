"""Unary calls: what an engine does besides generating."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Detokenize, Embed, Embedded, Rendered, Tokenize, Tokenized
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import Failed, UnaryResult, encode
from kolosal.errors import EngineDied, InsufficientMemory, InvalidRequest, QueueFull
from kolosal.schema import TextPrompt
from tests.engines.helpers import DEADLINE_S, config, eventually, loaded, script_worker
from tests.engines.worker.helpers import ask

FakeWorker = Callable[..., WorkerCommand]

NEVER = "ready(); until_the_end()"
"""A worker that hears everything and answers nothing."""


async def test_call_returns(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        assert await engine.call(Tokenize("a")) == Tokenized((97,), ("a",))
        assert engine.in_flight == 0


async def test_embeddings_are_answered(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        answer = await engine.call(Embed((TextPrompt("a"), TextPrompt("b"))))

        assert isinstance(answer, Embedded)
        assert answer.n_tokens == (2, 2)


async def test_memory_that_is_not_there_can_be_had_later(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("embed@1=memory")) as engine:
        with pytest.raises(InsufficientMemory):
            await engine.call(Embed((TextPrompt("a"),)))

        assert isinstance(await engine.call(Embed((TextPrompt("a"),))), Embedded)


async def test_worker_ends_in_the_midst_of_embeddings(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("embed@1=wait")) as engine:
        calling = asyncio.create_task(engine.call(Embed((TextPrompt("a"),))))
        await eventually(lambda: engine.in_flight == 1)
        await asyncio.wait_for(engine.close(), DEADLINE_S)
        with pytest.raises(EngineDied):
            await calling


async def test_calls_at_once_return_each_its_own(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        answers = await asyncio.gather(*(engine.call(Detokenize((97 + i,))) for i in range(8)))

        assert answers == [Rendered(chr(97 + i), 1) for i in range(8)]


async def test_call_returns_while_others_generate(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("step_s=0.005")) as engine:
        stream = engine.generate(ask("5:", max_tokens=60))
        await anext(stream)
        assert await engine.call(Detokenize((97,))) == Rendered("a", 1)

        assert engine.in_flight == 1
        stream.abort()


async def test_call_that_is_refused_raises_its_own_error(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        with pytest.raises(InvalidRequest, match="vocabulary") as error:
            await engine.call(Detokenize((9999,)))

        assert error.value.param == "tokens"
        assert engine.in_flight == 0


async def test_engine_that_was_never_loaded_takes_no_calls(fake_worker: FakeWorker) -> None:
    with pytest.raises(EngineDied, match="not loaded"):
        await Engine(config(), WorkerCommand()).call(Tokenize("a"))


async def test_calls_count_as_requests() -> None:
    async with loaded(script_worker(NEVER), max_queued=0) as engine:
        calling = [asyncio.create_task(engine.call(Tokenize("a"))) for _ in range(4)]
        await eventually(lambda: engine.in_flight == 4)
        with pytest.raises(QueueFull, match="4 requests"):
            await engine.call(Tokenize("a"))
        await cancel(*calling)


async def test_caller_who_leaves_aborts_the_call() -> None:
    said = UnaryResult(1, Rendered("late", 1))
    body = f"""
    ready()
    hear()
    assert b'"abort"' in hear()
    say({encode(said)!r})
    say({encode(UnaryResult(2, Rendered("on time", 1)))!r})
    until_the_end()
    """
    async with loaded(script_worker(body)) as engine:
        calling = asyncio.create_task(engine.call(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await cancel(calling)
        assert engine.in_flight == 0

        answer = await asyncio.wait_for(engine.call(Tokenize("b")), DEADLINE_S)  # the late answer did no harm
        assert answer == Rendered("on time", 1)
        assert not engine._requests._aborted


async def test_call_that_was_aborted_may_have_failed() -> None:
    body = f"""
    ready()
    hear(), hear()
    say({encode(Failed(1, "InvalidRequest", "no"))!r})
    say({encode(UnaryResult(2, Rendered("yes", 1)))!r})
    until_the_end()
    """
    async with loaded(script_worker(body)) as engine:
        calling = asyncio.create_task(engine.call(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await cancel(calling)

        assert await asyncio.wait_for(engine.call(Tokenize("b")), DEADLINE_S) == Rendered("yes", 1)


async def test_death_of_the_worker_ends_calls() -> None:
    async with loaded(script_worker("ready(); hear(); os._exit(9)")) as engine:
        with pytest.raises(EngineDied, match="stopped"):
            await asyncio.wait_for(engine.call(Tokenize("a")), DEADLINE_S)

        assert engine.in_flight == 0


async def test_close_ends_calls() -> None:
    async with loaded(script_worker(NEVER)) as engine:
        calling = asyncio.create_task(engine.call(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await engine.close()
        with pytest.raises(EngineDied, match="shut down"):
            await calling


async def test_call_that_cannot_be_sent_keeps_nobody_waiting(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        with pytest.raises(TypeError):
            await engine.call(Tokenize("\ud800"))

        await asyncio.wait_for(engine.drain(), DEADLINE_S)


async def test_drain_waits_for_calls() -> None:
    body = f"ready(); hear(); time.sleep(0.05); say({encode(UnaryResult(1, Rendered('x', 1)))!r}); until_the_end()"
    async with loaded(script_worker(body)) as engine:
        calling = asyncio.create_task(engine.call(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await asyncio.wait_for(engine.drain(), DEADLINE_S)

        assert await calling == Rendered("x", 1)


@pytest.mark.parametrize("request_id", [1, 2], ids=["a generation", "nothing"])
async def test_result_of_what_was_no_call_ends_the_worker(request_id: int) -> None:
    body = f"ready(); hear(); say({encode(UnaryResult(request_id, Rendered('x', 1)))!r}); until_the_end()"
    async with loaded(script_worker(body)) as engine:
        with pytest.raises(EngineDied):
            await asyncio.wait_for(engine.generate(ask("5:")).collect(), DEADLINE_S)


async def test_output_for_a_call_ends_the_worker() -> None:
    line = b'{"tag":"step","outputs":[{"request_id":1,"delta":{"text":"x"}}]}\n'
    async with loaded(script_worker(f"ready(); hear(); say({line!r}); until_the_end()")) as engine:
        with pytest.raises(EngineDied):
            await asyncio.wait_for(engine.call(Tokenize("a")), DEADLINE_S)


async def cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
