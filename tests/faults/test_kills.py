"""P1, P2, P3: a worker that is killed or hangs while it answers. Its requests go on; nobody else notices."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, FlashAttention, LoadingParameters
from kolosal.engines.stream import Completion
from kolosal.schema import GenerateRequest
from tests.engines.helpers import eventually, loaded, recent_deaths
from tests.engines.worker.helpers import ask, counting
from tests.faults.drivers import (
    Footprint,
    kept_busy,
    killed_at_random,
    killed_while_answering,
    same_but_for_near_ties,
    stalls,
)
from tests.settings import with_settings

FakeWorker = Callable[..., WorkerCommand]

N_STREAMS = 32

MAX_GROWTH_BYTES = 5 * 1024 * 1024

MAX_STALL_S = 0.1

PRECISE: dict[str, Any] = {
    "cache_type_k": "f32",
    "cache_type_v": "f32",
    "flash_attn": FlashAttention.OFF,
    "n_threads": 1,
    "speculation": False,
}
"""What makes a sum independent of its neighbours in the batch."""


def model(path: Path, **parameters: Any) -> EngineConfig:
    return EngineConfig(
        "doomed", str(path), LoadingParameters(**{"n_ctx": 256, "n_parallel": 8} | PRECISE | parameters)
    )


def requests(n_tokens: int) -> list[GenerateRequest]:
    """As many different ones, greedy."""
    sampling = {"max_tokens": n_tokens, "ignore_eos": True, "logprobs": 5}
    return [replace(ask(f"Story number {index}:", **sampling), use_cache=False) for index in range(N_STREAMS)]


def completions(ends: list[Completion | BaseException]) -> list[Completion]:
    assert [end for end in ends if isinstance(end, BaseException)] == []
    return [end for end in ends if isinstance(end, Completion)]


@pytest.mark.fault("P1")
@pytest.mark.parametrize("after_tokens", [1, 9])
async def test_greedy_text_is_that_of_an_undisturbed_run(
    real_worker: WorkerCommand,
    tiny_gguf: Path,
    after_tokens: int,
    sized: Callable[[int, int], int],
    seen: Callable[[str], None],
) -> None:
    async with loaded(real_worker, model(tiny_gguf), max_queued=N_STREAMS) as engine:
        undisturbed = await asyncio.gather(*(engine.generate(one).collect() for one in requests(24)))
        with stalls() as taken:
            ends = await killed_while_answering(engine, requests(24), after_tokens=after_tokens)

        assert [(end.text, end.tokens, end.usage.completion_tokens) for end in completions(ends)] == [
            (one.text, one.tokens, 24) for one in undisturbed
        ]
        assert (recent_deaths(engine), engine.in_flight) == (1, 0)
        assert max(taken) < sized(10, 1) * MAX_STALL_S
        seen(f"killed after {after_tokens} tokens: {len(ends)} of {N_STREAMS} texts equal, {taken.figure}")


@pytest.mark.fault("P3")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
async def test_streams_of_a_worker_that_hangs_go_on(real_worker: WorkerCommand, tiny_gguf: Path) -> None:
    """P3: SIGSTOP while it answers."""
    async with loaded(with_settings(real_worker, step_timeout_s=4.0), model(tiny_gguf)) as engine:
        undisturbed = await asyncio.gather(*(engine.generate(one).collect() for one in requests(64)[:8]))
        ends = await killed_while_answering(engine, requests(64)[:8], how=signal.SIGSTOP)

        assert [end.text for end in completions(ends)] == [one.text for one in undisturbed]
        assert recent_deaths(engine) == 1


@pytest.mark.fault("P1")
@pytest.mark.model
async def test_real_model_goes_on_where_it_was(
    real_worker: WorkerCommand, smollm2: Path, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    n_streams = sized(8, N_STREAMS)
    async with (
        loaded(real_worker, model(smollm2), max_queued=N_STREAMS) as engine,
        loaded(real_worker, model(smollm2)) as living,
    ):
        undisturbed = await asyncio.gather(
            *(engine.generate(one).collect() for one in requests(16)[:n_streams])
        )
        other = asyncio.ensure_future(living.generate(requests(48)[0]).collect())
        pid = living.worker_pid
        ends = completions(await killed_while_answering(engine, requests(16)[:n_streams], after_tokens=5))

        assert len(ends) == n_streams
        assert all(map(same_but_for_near_ties, undisturbed, ends))
        equal = sum(end.text == one.text for end, one in zip(ends, undisturbed, strict=True))
        assert equal >= n_streams // 2
        assert (await other).usage.completion_tokens == 48
        assert living.worker_pid == pid
        seen(
            f"a real model: {equal} of {n_streams} equal, the others but for near ties; another engine lost nothing"
        )


@pytest.mark.fault("P2")
async def test_many_kills_at_random_leave_nothing_wrong_and_nothing_behind(
    fake_worker: FakeWorker, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    """Whatever ends well is right, whatever else ends typed, and all is as before."""
    n_kills = sized(10, 100)
    chance = random.Random(7)  # noqa: S311 - no secret
    command = replace(with_settings(fake_worker("step_s=0.002"), max_crashes=1000), restart_delays_s=(0.0,))
    async with loaded(
        command, EngineConfig("doomed", "fake.gguf", LoadingParameters(n_parallel=4, n_ctx=200))
    ) as engine:
        before = Footprint.of(psutil.Process())
        enough = asyncio.Event()
        clients = [
            asyncio.create_task(kept_busy(engine, counting_request, random.Random(k), enough))  # noqa: S311
            for k in range(8)
        ]
        await killed_at_random(engine, n_kills, chance, most_s=sized(3, 30) / 10)
        enough.set()
        ends = sum(await asyncio.gather(*clients), Counter())
        await engine.ensure_ready()
        after = Footprint.of(psutil.Process())

        assert min(ends["answered"], ends["left"]) > 0
        assert engine.in_flight == 0
        await eventually(lambda: Footprint.of(psutil.Process()).left(before) == {})
        assert after.rss - before.rss < sized(5, 1) * MAX_GROWTH_BYTES
        told = ", ".join(f"{count} {end}" for end, count in ends.most_common())
        seen(f"{n_kills} kills: {told}, none hung; RSS {(after.rss - before.rss) / 2**20:+.1f} MB")


def counting_request(chance: random.Random) -> tuple[GenerateRequest, str]:
    start, length = chance.randrange(1000), chance.randrange(1, 60)
    return ask(f"{start}:", max_tokens=length), counting(start, length)
