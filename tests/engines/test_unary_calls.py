"""Questions an engine is asked besides generating."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Detokenize, Embed, Embedded, Rendered, Tokenize, Tokenized
from kolosal.engines.ipc.messages import Answered, Failed, encode
from kolosal.engines.ipc.process import WorkerCommand
from kolosal.errors import EngineDied, InsufficientMemory, InvalidRequest, QueueFull
from kolosal.schema import TextPrompt
from tests.engines.helpers import DEADLINE_S, config, eventually, loaded, script_worker
from tests.engines.worker.helpers import ask

FakeWorker = Callable[..., WorkerCommand]

NEVER = "ready(); until_the_end()"
"""A worker that hears everything and answers nothing."""


async def test_question_is_answered(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        assert await engine.ask(Tokenize("a")) == Tokenized((97,), ("a",))
        assert engine.in_flight == 0


async def test_embeddings_are_answered(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        answer = await engine.ask(Embed((TextPrompt("a"), TextPrompt("b"))))

        assert isinstance(answer, Embedded)
        assert answer.n_tokens == (2, 2)


async def test_memory_that_is_not_there_can_be_had_later(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("embed@1=memory")) as engine:
        with pytest.raises(InsufficientMemory):
            await engine.ask(Embed((TextPrompt("a"),)))

        assert isinstance(await engine.ask(Embed((TextPrompt("a"),))), Embedded)


async def test_worker_ends_in_the_midst_of_embeddings(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("embed@1=wait")) as engine:
        asked = asyncio.create_task(engine.ask(Embed((TextPrompt("a"),))))
        await eventually(lambda: engine.in_flight == 1)
        await asyncio.wait_for(engine.close(), DEADLINE_S)
        with pytest.raises(EngineDied):
            await asked


async def test_questions_at_once_are_each_answered_right(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        answers = await asyncio.gather(*(engine.ask(Detokenize((97 + i,))) for i in range(8)))

        assert answers == [Rendered(chr(97 + i), 1) for i in range(8)]


async def test_question_is_answered_while_others_generate(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("step_s=0.005")) as engine:
        stream = engine.generate(ask("5:", max_tokens=60))
        await anext(stream)
        assert await engine.ask(Detokenize((97,))) == Rendered("a", 1)

        assert engine.in_flight == 1
        stream.abort()


async def test_question_that_is_refused_raises_its_own_error(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        with pytest.raises(InvalidRequest, match="vocabulary") as error:
            await engine.ask(Detokenize((9999,)))

        assert error.value.param == "tokens"
        assert engine.in_flight == 0


async def test_engine_that_was_never_loaded_is_not_asked(fake_worker: FakeWorker) -> None:
    with pytest.raises(EngineDied, match="not loaded"):
        await Engine(config(), WorkerCommand(), 1).ask(Tokenize("a"))


async def test_questions_count_as_requests() -> None:
    async with loaded(script_worker(NEVER), max_queued=0) as engine:
        asked = [asyncio.create_task(engine.ask(Tokenize("a"))) for _ in range(4)]
        await eventually(lambda: engine.in_flight == 4)
        with pytest.raises(QueueFull, match="4 requests"):
            await engine.ask(Tokenize("a"))
        await cancel(*asked)


async def test_caller_who_leaves_takes_the_question_back() -> None:
    said = Answered(1, Rendered("late", 1))
    body = f"""
    ready()
    hear()
    assert b'"abort"' in hear()
    say({encode(said)!r})
    say({encode(Answered(2, Rendered("on time", 1)))!r})
    until_the_end()
    """
    async with loaded(script_worker(body)) as engine:
        asked = asyncio.create_task(engine.ask(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await cancel(asked)
        assert engine.in_flight == 0

        answer = await asyncio.wait_for(engine.ask(Tokenize("b")), DEADLINE_S)  # the late answer did no harm
        assert answer == Rendered("on time", 1)
        assert not engine._flights._aborted


async def test_question_that_was_taken_back_may_have_failed() -> None:
    body = f"""
    ready()
    hear(), hear()
    say({encode(Failed(1, "InvalidRequest", "no"))!r})
    say({encode(Answered(2, Rendered("yes", 1)))!r})
    until_the_end()
    """
    async with loaded(script_worker(body)) as engine:
        asked = asyncio.create_task(engine.ask(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await cancel(asked)

        assert await asyncio.wait_for(engine.ask(Tokenize("b")), DEADLINE_S) == Rendered("yes", 1)


async def test_death_of_the_worker_ends_questions() -> None:
    async with loaded(script_worker("ready(); hear(); os._exit(9)")) as engine:
        with pytest.raises(EngineDied, match="stopped"):
            await asyncio.wait_for(engine.ask(Tokenize("a")), DEADLINE_S)

        assert engine.in_flight == 0


async def test_close_ends_questions() -> None:
    async with loaded(script_worker(NEVER)) as engine:
        asked = asyncio.create_task(engine.ask(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await engine.close()
        with pytest.raises(EngineDied, match="shut down"):
            await asked


async def test_question_that_cannot_be_sent_keeps_nobody_waiting(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        with pytest.raises(TypeError):
            await engine.ask(Tokenize("\ud800"))

        await asyncio.wait_for(engine.drain(), DEADLINE_S)


async def test_drain_waits_for_questions() -> None:
    body = (
        f"ready(); hear(); time.sleep(0.05); say({encode(Answered(1, Rendered('x', 1)))!r}); until_the_end()"
    )
    async with loaded(script_worker(body)) as engine:
        asked = asyncio.create_task(engine.ask(Tokenize("a")))
        await eventually(lambda: engine.in_flight == 1)
        await asyncio.wait_for(engine.drain(), DEADLINE_S)

        assert await asked == Rendered("x", 1)


@pytest.mark.parametrize("request_id", [1, 2], ids=["a generation", "nothing"])
async def test_answer_to_what_was_no_question_ends_the_worker(request_id: int) -> None:
    body = f"ready(); hear(); say({encode(Answered(request_id, Rendered('x', 1)))!r}); until_the_end()"
    async with loaded(script_worker(body)) as engine:
        with pytest.raises(EngineDied):
            await asyncio.wait_for(engine.generate(ask("5:")).collect(), DEADLINE_S)


async def test_output_for_a_question_ends_the_worker() -> None:
    line = b'{"tag":"step","outputs":[{"request_id":1,"delta":{"text":"x"}}]}\n'
    async with loaded(script_worker(f"ready(); hear(); say({line!r}); until_the_end()")) as engine:
        with pytest.raises(EngineDied):
            await asyncio.wait_for(engine.ask(Tokenize("a")), DEADLINE_S)


async def cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
