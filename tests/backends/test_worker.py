"""Engines over backends: their processes, as the daemon sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Embed, Render, Rendered, Tokenize, Tokenized
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, FittedConfig, FittedParameters
from kolosal.engines.state import EngineState
from kolosal.errors import (
    ContextLengthExceeded,
    EngineDied,
    GenerationFailed,
    KolosalError,
    LoadFailed,
    UnsupportedFeature,
)
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    Message,
    TextPrompt,
    TokensPrompt,
    Usage,
)
from tests.backends.scripted import Resuming, Scripted
from tests.engines.helpers import DEADLINE_S, eventually, gone, loaded
from tests.settings import with_settings

PLACES = {cls.__name__.lower(): f"{cls.__module__}:{cls.__name__}" for cls in (Scripted, Resuming)}


def said(text: str, *, thread_id: str = "", **sampling: object) -> GenerateRequest:
    """A conversation of one turn."""
    prompt = ChatPrompt((Message("user", text),))
    return GenerateRequest(prompt, SamplingParams(**sampling), thread_id=thread_id)  # type: ignore[arg-type]


def engine_of(backend: str, parameters: dict[str, int] | None = None, **options: str) -> EngineConfig:
    return FittedConfig("b", "", FittedParameters(**parameters or {}), backend, dict(options))  # type: ignore[arg-type]


@asynccontextmanager
async def open_engine(
    worker: WorkerCommand, backend: str = "scripted", **parameters: int
) -> AsyncIterator[Engine]:
    command = replace(worker, backends=PLACES, restart_delays_s=(0.0,))
    async with loaded(command, engine_of(backend, parameters)) as engine:
        yield engine


async def text_of(engine: Engine, request: GenerateRequest) -> str:
    return (await asyncio.wait_for(engine.generate(request).collect(), DEADLINE_S)).text


async def test_a_backend_answers_within_what_is_seen_to_for_it(real_worker: WorkerCommand) -> None:
    async with open_engine(real_worker, n_ctx=50) as engine:
        assert engine.info is not None
        assert (engine.info.description, engine.info.n_ctx_train) == ("a script", 100)

        assert await engine.generate(said("count 5")).collect() == replace(
            await engine.generate(said("count 5")).collect(),
            text="0 1 2 3 4 ",
            finish_reason=FinishReason.STOP,
            usage=Usage(2, 5),
        )
        cut = await engine.generate(said("count 9", max_tokens=2)).collect()
        assert (cut.text, cut.finish_reason, cut.usage) == ("0 1 ", FinishReason.LENGTH, Usage(2, 2))
        nothing = await engine.generate(said("count 9", max_tokens=0)).collect()
        assert (nothing.text, nothing.finish_reason) == ("", FinishReason.LENGTH)
        stopped = await engine.generate(said("count 99", stop=("1 2",))).collect()
        assert (stopped.text, stopped.stop, stopped.finish_reason) == ("0 ", "1 2", FinishReason.STOP)
        whole = await engine.generate(said("count 99")).collect()
        assert (whole.finish_reason, whole.usage) == (FinishReason.LENGTH, Usage(2, 48))
        told = await engine.generate(said("tokens")).collect()
        assert (told.tokens, told.finish_reason, told.usage) == ((1, 2), FinishReason.LENGTH, Usage(7, 2, 3))

        request = replace(said("count 1"), max_context=2)
        with pytest.raises(ContextLengthExceeded):
            await engine.generate(request).collect()


async def test_what_a_backend_cannot_do_is_refused_and_it_goes_on(real_worker: WorkerCommand) -> None:
    refused: list[tuple[GenerateRequest, type[KolosalError], str]] = [
        (said("count 1", logprobs=1), UnsupportedFeature, "'scripted' does not support log-probabilities"),
        (replace(said(""), prompt=TextPrompt("a")), UnsupportedFeature, "prompts that are no conversation"),
        (replace(said(""), prompt=TokensPrompt((1,))), UnsupportedFeature, "prompts of tokens"),
        (said("raise"), GenerationFailed, "'scripted' failed: ZeroDivisionError"),
        (said("unfinished"), GenerationFailed, "without a Finish"),
    ]
    async with open_engine(real_worker) as engine:
        for request, error, words in refused:
            with pytest.raises(error, match=words):
                await engine.generate(request).collect()
        with pytest.raises(UnsupportedFeature, match="'scripted' makes no embeddings"):
            await engine.call(Embed((TextPrompt("a"),)))
        with pytest.raises(UnsupportedFeature, match="'scripted' tells no tokens"):
            await engine.call(Tokenize("a"))
        turn = ChatPrompt((Message("user", "a b"),))
        assert await engine.call(Render(turn)) == Rendered("user: a b\ntool: run 1\n", 2)

        assert await text_of(engine, said("count 2")) == "0 1 "
        assert await text_of(engine, said("arguments", repeat_penalty=1.5)) == " ".join(
            sorted(
                [
                    "temperature",
                    "top_p",
                    "top_k",
                    "min_p",
                    "seed",
                    "max_tokens",
                    "stop",
                    "request_id",
                    "generated",
                    "repeat_penalty",
                    "repeat_last_n",
                    "tools",
                ]
            )
        )


async def test_aborts_end_what_runs_and_what_waits(real_worker: WorkerCommand) -> None:
    async with open_engine(real_worker, n_parallel=1) as engine:
        runs, waits = engine.generate(said("wait")), engine.generate(said("wait"))
        await asyncio.wait_for(runs.ready(), DEADLINE_S)
        last = engine.generate(replace(said("count 1"), priority=1))
        waits.abort()
        runs.abort()

        assert (await asyncio.wait_for(last.collect(), DEADLINE_S)).text == "0 "
        await eventually(lambda: not engine._requests._aborted)


async def test_a16_a_thread_has_one_context_and_strangers_their_own(real_worker: WorkerCommand) -> None:
    async with open_engine(real_worker) as engine:
        runs = [await text_of(engine, said("runs", thread_id=name)) for name in ("t", "u", "t", "", "")]
    assert runs == ["run 1", "run 1", "run 2", "run 1", "run 1"]


async def test_a_stream_goes_on_after_a_crash_where_the_backend_can(
    real_worker: WorkerCommand, tmp_path: Path
) -> None:
    async with open_engine(real_worker, "resuming") as engine:
        whole = await engine.generate(said(f"die {tmp_path / 'died'}", stop=("8 9",))).collect()
        assert (whole.text, whole.usage, whole.stop) == ("0 1 2 3 4 5 6 7 ", Usage(2, 10), "8 9")
        assert engine.state is EngineState.READY


async def test_a_stream_ends_with_its_process_where_the_backend_cannot(
    real_worker: WorkerCommand, tmp_path: Path
) -> None:
    async with open_engine(real_worker) as engine:
        unbegun = engine.generate(said("count 3"))
        with pytest.raises(EngineDied, match="cannot go on with what another one began"):
            await engine.generate(said(f"die {tmp_path / 'died'}")).collect()
        assert (await unbegun.collect()).text == "0 1 2 "
        assert await text_of(engine, said("count 2")) == "0 1 "


async def test_a_backend_that_blocks_its_thread_is_ended(real_worker: WorkerCommand) -> None:
    async with open_engine(with_settings(real_worker, step_timeout_s=1.0)) as engine:
        with pytest.raises(EngineDied, match="cannot go on with what another one began"):
            await asyncio.wait_for(engine.generate(said("block")).collect(), DEADLINE_S)
        assert await text_of(engine, said("count 2")) == "0 1 "


async def test_a_killed_echo_says_the_rest(real_worker: WorkerCommand) -> None:
    words = "say all of this. " * 100
    async with open_engine(real_worker, "echo") as engine:
        stream = engine.generate(said(words))
        await asyncio.wait_for(stream.ready(), DEADLINE_S)
        engine._worker.kill()  # type: ignore[union-attr]
        whole = await asyncio.wait_for(stream.collect(), DEADLINE_S)
    assert (whole.text, whole.usage.completion_tokens) == (words, len(words))


async def test_echo_has_tokens(real_worker: WorkerCommand) -> None:
    async with open_engine(real_worker, "echo") as engine:
        assert await engine.call(Tokenize("aé")) == Tokenized(
            (97, 233), ("a", "é".encode().decode("latin-1"))
        )
        chat = ChatPrompt((Message("user", "é"),))
        assert await engine.call(Render(chat)) == Rendered("user: é\n", 8)


@pytest.mark.parametrize(
    ("backend", "options", "words"),
    [
        ("nope", {}, "There is no backend 'nope'"),
        ("scripted", {"fails": "as told"}, "ValueError: as told"),
        ("tests.backends.scripted:CountingContext", {}, "is no BackendInterfaceBase"),
        ("tests.backends.nowhere:A", {}, "ModuleNotFoundError"),
    ],
)
async def test_what_cannot_be_loaded_says_why(
    real_worker: WorkerCommand, backend: str, options: dict[str, str], words: str
) -> None:
    engine = Engine(
        FittedConfig("b", "", FittedParameters(), backend, {**options}),
        replace(real_worker, backends=PLACES),
    )
    with pytest.raises(LoadFailed, match=words):
        await engine.ensure_ready()
    await engine.close()


async def test_a_backend_says_that_memory_is_short(real_worker: WorkerCommand) -> None:
    engine = Engine(engine_of("scripted", fails="memory"), replace(real_worker, backends=PLACES))
    with pytest.raises(KolosalError, match="no room for the script"):
        await engine.ensure_ready()
    await engine.close()


async def test_the_process_ends_with_its_engine(real_worker: WorkerCommand) -> None:
    async with open_engine(real_worker) as engine:
        pid = engine.worker_pid
        stream = engine.generate(said("wait"))
        await asyncio.wait_for(stream.ready(), DEADLINE_S)
        await engine.unload()
        assert pid is not None
        assert gone(pid)
        with pytest.raises(EngineDied, match="unloaded"):
            await stream.collect()
