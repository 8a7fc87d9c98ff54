"""A real model, through real workers: what it says makes sense and nothing of it is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, FlashAttention, LoadingParameters
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, FinishReason, GenerateRequest, Grammar, GrammarKind, Message
from tests.engines.helpers import loaded
from tests.engines.worker.helpers import ask

pytestmark = pytest.mark.model

CAPITAL = GenerateRequest(
    ChatPrompt((Message("user", "Name the capital city of France."),)),
    SamplingParams(temperature=0.0, max_tokens=24),
)


def model(path: Path, **parameters: Any) -> EngineConfig:
    return EngineConfig(
        "smollm2",
        str(path),
        LoadingParameters(**{"n_ctx": 512, "n_parallel": 2, "n_threads": 1} | parameters),
    )


async def test_question_is_answered(real_worker: WorkerCommand, smollm2: Path) -> None:
    async with loaded(real_worker, model(smollm2)) as engine:
        completion = await engine.generate(CAPITAL).collect()

        assert (completion.text, completion.finish_reason) == (
            "The capital city of France is Paris.",
            FinishReason.STOP,
        )


FILM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["title", "rating"],
    "properties": {
        "title": {"type": "string", "maxLength": 30},
        "rating": {"type": "number", "minimum": 0, "maximum": 10},
    },
}


async def test_number_digits(real_worker: WorkerCommand, smollm2: Path) -> None:
    """A small model counts on where nothing ends a number."""
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(FILM))
    prompt = ChatPrompt((Message("user", "Invent a film."),))
    async with loaded(real_worker, model(smollm2, n_parallel=8)) as engine:
        streams = [
            engine.generate(
                GenerateRequest(
                    prompt, SamplingParams(temperature=1.0, max_tokens=300, seed=seed), grammar=grammar
                )
            )
            for seed in range(16)
        ]
        for stream in streams:
            completion = await stream.collect()
            film = json.loads(completion.text)
            assert completion.finish_reason is FinishReason.STOP
            assert 0 <= film["rating"] <= 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the whole cache resident")
@pytest.mark.parametrize("parameters", [{}, {"warmup": True}, {"flash_attn": FlashAttention.OFF}], ids=str)
async def test_cells_that_nobody_used_take_no_memory(
    real_worker: WorkerCommand, smollm2: Path, parameters: dict[str, Any]
) -> None:
    """450 MiB of cells; weights of 92 MiB are mapped."""
    large = {"kv_pool_tokens": 20_480, "n_ctx": 4096, "n_parallel": 16} | parameters
    async with loaded(real_worker, model(smollm2, **large)) as engine:
        await engine.generate(CAPITAL).collect()

        assert psutil.Process(engine.worker_pid).memory_info().rss < 330 * 2**20


async def test_model_brings_its_own_template(real_worker: WorkerCommand, smollm2: Path) -> None:
    async with loaded(real_worker, model(smollm2)) as engine:
        assert engine.info is not None
        assert (engine.info.chat_template, engine.info.n_vocab) == ("model", 49_152)


async def test_question_is_answered_from_a_quantised_cache(real_worker: WorkerCommand, smollm2: Path) -> None:
    parameters = {
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "flash_attn": FlashAttention.ON,
        "warmup": True,
    }
    async with loaded(real_worker, model(smollm2, **parameters)) as engine:
        assert "Paris" in (await engine.generate(CAPITAL).collect()).text


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("The emoji 🎉🎉🎉🎉🎉🎉", "🎉🎉🎉"), ("你好你好你好你好你好你好", "\uff01\uff01\uff01")],
)
async def test_code_points_are_whole_in_every_delta(
    real_worker: WorkerCommand, smollm2: Path, prompt: str, expected: str
) -> None:
    async with loaded(real_worker, model(smollm2)) as engine:
        pieces = [delta.text async for delta in engine.generate(ask(prompt, max_tokens=30))]

        assert expected in "".join(pieces)
        assert not any("\ufffd" in piece for piece in pieces)


async def test_kill_costs_another_engine_no_token(real_worker: WorkerCommand, smollm2: Path) -> None:
    story = replace(ask("Once upon a time", max_tokens=60, ignore_eos=True), use_cache=False)
    same_steps = model(smollm2, speculation=False)  # what is computed together decides the last bits of a sum
    async with loaded(real_worker, same_steps) as dying, loaded(real_worker, same_steps) as living:
        undisturbed = await living.generate(story).collect()
        other = asyncio.ensure_future(living.generate(story).collect())
        doomed = dying.generate(story)
        await doomed.ready()
        os.kill(dying.worker_pid or 0, signal.SIGTERM)

        assert (await doomed.collect()).usage == undisturbed.usage
        assert await other == undisturbed


async def test_killed_engine_goes_on_and_answers_again(real_worker: WorkerCommand, smollm2: Path) -> None:
    async with loaded(real_worker, model(smollm2)) as engine:
        doomed = engine.generate(CAPITAL)
        await doomed.ready()
        os.kill(engine.worker_pid or 0, signal.SIGTERM)

        assert (await doomed.collect()).text == "The capital city of France is Paris."
        assert "Paris" in (await engine.generate(CAPITAL).collect()).text
