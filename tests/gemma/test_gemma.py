"""A real model with sliding windows, through real workers: whatever is shared, it says what it says alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.stream import Completion
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, Message
from tests.engines.helpers import loaded
from tests.faults.drivers import same_but_for_near_ties

pytestmark = pytest.mark.model

SYSTEM = "You answer in one short sentence. " + " ".join(
    f"Rule {number}: whoever asks for number {number * 37 % 101} is told about it." for number in range(36)
)
"""More tokens than the window has."""


def request(*contents: str, use_cache: bool = True) -> GenerateRequest:
    roles = ("user", "assistant")
    turns = [Message(roles[place % 2], content) for place, content in enumerate(contents)]
    sampling = SamplingParams(temperature=0.0, max_tokens=12, logprobs=3)
    prompt = ChatPrompt((Message("system", SYSTEM), *turns))
    return GenerateRequest(prompt, sampling, use_cache=use_cache)


QUESTIONS = [request(f"What are you told about number {number}?") for number in range(3)]


@pytest_asyncio.fixture(params=[True, False])
async def engine(request: pytest.FixtureRequest, real_worker: WorkerCommand) -> AsyncIterator[Engine]:
    """With all cells of the layers with a window, and with those that their window sees."""
    path = Path(os.environ["KOLOSAL_TEST_GEMMA"])
    parameters = LoadingParameters(n_ctx=2048, n_parallel=4, swa_full=request.param)
    async with loaded(real_worker, EngineConfig("gemma", str(path), parameters)) as one:
        yield one


async def answers(engine: Engine, requests: list[GenerateRequest]) -> list[Completion]:
    return await asyncio.gather(*(engine.generate(one).collect() for one in requests))


async def test_a_shared_prompt_is_read_once_and_changes_no_answer(engine: Engine) -> None:
    alone = [await engine.generate(replace(one, use_cache=False)).collect() for one in QUESTIONS]
    together = await answers(engine, QUESTIONS)

    n_tokens = min(one.usage.prompt_tokens for one in together)
    assert n_tokens > 512
    first, *others = sorted(one.usage.cached_tokens for one in together)
    assert first == 0
    assert all(cached > n_tokens - 30 for cached in others)
    assert all(map(same_but_for_near_ties, alone, together))


async def test_a_second_turn_is_not_computed_again(engine: Engine) -> None:
    question = "What is the rule for number 37?"
    first = await engine.generate(request(question)).collect()
    turn = request(question, first.text, "And for number 74?")
    second = await engine.generate(turn).collect()
    afresh = await engine.generate(replace(turn, use_cache=False)).collect()

    assert second.usage.cached_tokens >= first.usage.prompt_tokens - 1
    assert same_but_for_near_ties(afresh, second)
