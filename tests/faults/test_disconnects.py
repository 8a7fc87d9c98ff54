"""H1, H2: clients that leave, at any moment, leave nothing running and nothing held."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from kolosal.app import create_app
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from tests.engines.helpers import config, eventually, in_turn, recent_deaths, starts
from tests.engines.worker.helpers import counting
from tests.fakes import AsgiRequest, http_client
from tests.faults.drivers import Footprint, stalls
from tests.settings import settings_of

FakeWorker = Callable[..., WorkerCommand]

MAX_STALL_S = 0.1

MAX_GROWTH_BYTES = 10 * 1024 * 1024

FREED_WITHIN_S = 2

STREAM = {"model": "test", "prompt": "5:", "stream": True, "max_tokens": 3000}


@asynccontextmanager
async def served(
    command: WorkerCommand, *, load: bool = True, n_ctx: int = 4000
) -> AsyncIterator[tuple[Starlette, Engine]]:
    """An application with one engine."""
    registry = EngineRegistry(command)
    engine = await registry.add(config(n_parallel=4, n_ctx=n_ctx, n_batch=64), load=load)
    try:
        yield create_app(settings_of(access_log=False), registry), engine
    finally:
        await registry.close(drain_s=0)


async def ask_and_leave(app: Starlette, *, turns: int = 0, messages: int = 0) -> None:
    """A client that leaves after it has got so many messages, and so many turns of the event loop later."""
    request = AsgiRequest("/v1/completions", STREAM)
    task = request.start(app)
    while len(request.sent) < messages:
        request.arrived.clear()
        await request.arrived.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    request.leave()
    await task


async def freed(engine: Engine) -> float:
    """Nothing is in flight, here and in the worker: the next request gets a place at once. Seconds until then."""
    began = time.monotonic()
    await eventually(lambda: engine.in_flight == 0 and not engine._requests._aborted)
    return time.monotonic() - began


@pytest.mark.fault("H1")
async def test_clients_who_leave_at_any_moment_leave_nothing_behind(
    fake_worker: FakeWorker, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    n_leavers = sized(200, 1000)
    chance = random.Random(3)  # noqa: S311 - no secret
    async with served(fake_worker("step_s=0.001")) as (app, engine):
        await ask_and_leave(app, messages=2)
        await freed(engine)
        tasks, before = len(asyncio.all_tasks()), Footprint.of(psutil.Process())
        at_once = asyncio.Semaphore(16)

        async def leave() -> None:
            async with at_once:
                await ask_and_leave(app, turns=chance.randrange(40), messages=chance.choice((0, 2, 9)))

        with stalls() as taken:
            await asyncio.gather(*(leave() for _ in range(n_leavers)))
            freed_s = await freed(engine)

        after = Footprint.of(psutil.Process())
        await eventually(
            lambda: (len(asyncio.all_tasks()), Footprint.of(psutil.Process()).left(before)) == (tasks, {})
        )
        assert freed_s < sized(30, FREED_WITHIN_S)
        assert max(taken) < sized(10, 1) * MAX_STALL_S
        assert after.rss - before.rss < sized(5, 1) * MAX_GROWTH_BYTES
        seen(
            f"{n_leavers} left, all freed after {freed_s:.2f} s,"
            f" RSS {(after.rss - before.rss) / 2**20:+.1f} MB, {taken.figure}"
        )
        assert recent_deaths(engine) == 0
        async with http_client(app) as client:
            answer = await client.post(
                "/v1/completions", json={"model": "test", "prompt": "5:", "max_tokens": 4}
            )
            assert answer.json()["choices"][0]["text"] == "6 7 "


@pytest.mark.fault("H2")
async def test_client_who_leaves_the_queue_is_never_served(fake_worker: FakeWorker) -> None:
    async with served(fake_worker("step_s=0.005")) as (app, engine):
        running = [AsgiRequest("/v1/completions", STREAM) for _ in range(4)]
        tasks = [request.start(app) for request in running]
        for request in running:
            await request.until(b"6")
        await ask_and_leave(app, turns=30)
        assert engine.in_flight == 4
        for request in running:
            request.leave()
        await asyncio.gather(*tasks)
        await freed(engine)


@pytest.mark.fault("H2")
@pytest.mark.parametrize("turns", [0, 5, 50])
async def test_client_who_leaves_while_the_model_loads_submits_nothing(
    fake_worker: FakeWorker, turns: int
) -> None:
    async with served(fake_worker("load_hang"), load=False) as (app, engine):
        await ask_and_leave(app, turns=turns)
        assert engine.in_flight == 0


@pytest.mark.fault("H2")
async def test_client_who_leaves_while_the_engine_restarts_frees_everything(
    tmp_path: Path, fake_worker: FakeWorker
) -> None:
    command = in_turn(tmp_path, fake_worker("crash@6", "step_s=0.01"), fake_worker("load_hang"))
    async with served(command) as (app, engine):
        request = AsgiRequest("/v1/completions", STREAM)
        task = request.start(app)
        await request.until(b"6")
        await eventually(lambda: starts(tmp_path) == 2 and engine.state is EngineState.LOADING)
        assert engine.in_flight == 1
        request.leave()
        await task

        assert engine.in_flight == 0


@pytest.mark.fault("H2")
async def test_client_who_leaves_while_its_prompt_is_computed_stops_that(
    fake_worker: FakeWorker, seen: Callable[[str], None]
) -> None:
    """8,000 tokens in steps of 64: there is more than a second to leave in."""
    async with served(fake_worker("step_s=0.01"), n_ctx=10_000) as (app, engine):
        request = AsgiRequest("/v1/completions", {**STREAM, "prompt": "x" * 8000 + "5:"})
        task = request.start(app)
        await eventually(lambda: engine.in_flight == 1)
        async with http_client(app) as client:  # its steps are the other's too
            beside = {"model": "test", "prompt": "7:", "max_tokens": 9}
            answer = await client.post("/v1/completions", json=beside)
        assert answer.json()["choices"][0]["text"] == counting(7, 9)
        assert engine.in_flight == 1
        request.leave()
        await task
        freed_s = await freed(engine)

        assert request.content == b""
        assert recent_deaths(engine) == 0
        seen(f"in a prefill: the worker says after {freed_s * 1000:.0f} ms that it stopped")


class LeavesAtTheLastToken(AsgiRequest):
    """A client whose connection ends with the event that says why the text ends."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if b'"finish_reason":"length"' in message.get("body", b""):
            self.leave()
            await asyncio.sleep(0)


@pytest.mark.fault("H2")
async def test_client_who_leaves_before_done_leaves_nothing(fake_worker: FakeWorker) -> None:
    async with served(fake_worker()) as (app, engine):
        for max_tokens in (1, 2, 9):
            request = LeavesAtTheLastToken("/v1/completions", {**STREAM, "max_tokens": max_tokens})
            await request.start(app)
            assert b'"finish_reason":"length"' in request.content
            await freed(engine)

        assert recent_deaths(engine) == 0
        async with http_client(app) as client:
            body = {"model": "test", "prompt": "5:", "max_tokens": 4}
            answer = await client.post("/v1/completions", json=body)
            assert answer.json()["choices"][0]["text"] == "6 7 "
