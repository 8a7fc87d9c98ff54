"""An engine with several workers: real processes over the fake backend, relayed by `WorkerHost`s that are called without Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psutil
import pytest

from kolosal.cluster import replica_set
from kolosal.cluster.ray_process import RayProcess
from kolosal.cluster.replica_set import ReplicaSet
from kolosal.cluster.worker_host import Placed, WorkerHost, WorkerOrder
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.ipc.workers import WorkerEvents
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import (
    EngineConfig,
    FittedConfig,
    LoadingParameters,
    Placement,
    ReplicaLimits,
    Replicas,
)
from kolosal.sampling import SamplingParams
from kolosal.schema import GenerateRequest, TextPrompt
from tests.engines.helpers import eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a worker is killed by a signal")


class _Call:
    def __init__(self, host: WorkerHost, name: str) -> None:
        self._host = host
        self._name = name

    def remote(self, *arguments: Any) -> asyncio.Task[Any]:
        async def call() -> Any:
            done = getattr(self._host, self._name)(*arguments)
            return await done if asyncio.iscoroutine(done) else done

        return asyncio.create_task(call())


class Actor:
    """A `WorkerHost` in this process, with the way to call it that Ray's handles have."""

    def __init__(self) -> None:
        self.host = WorkerHost()

    def __getattr__(self, name: str) -> _Call:
        return _Call(self.host, name)

    async def release(self) -> None:
        for task in self.host._tasks[:1]:  # that watches the head: it would end this process
            task.cancel()


class Machines:
    """Where workers are placed: each on a machine of its own, in turn."""

    def __init__(self) -> None:
        self.n_started = 0
        self.processes: list[RayProcess] = []
        self.sets: list[ReplicaSet] = []
        self.later_s = 0.0
        """By how much their clock is ahead."""

    async def launch(
        self,
        command: WorkerCommand,
        config: FittedConfig,
        replicas: Callable[[], Replicas],
        events: WorkerEvents,
    ) -> tuple[ReplicaSet, EngineInfo]:
        one = ReplicaSet(
            command,
            config,
            replicas,
            events,
            lambda avoid: Transport(self, avoid),
            clock=lambda: time.monotonic() + self.later_s,
        )
        self.sets.append(one)
        return one, await one.launch()

    async def close(self) -> None:
        """Nothing to do."""


class Transport:
    adopted = False
    place: Placed | None = None

    def __init__(self, machines: Machines, avoid: Collection[str]) -> None:
        self._machines = machines

    def memory_kills(self) -> int | None:
        return None

    async def start(self, command: WorkerCommand, config: FittedConfig) -> RayProcess:
        actor = Actor()
        self._machines.n_started += 1
        self.place = Placed(f"m{self._machines.n_started}", f"m{self._machines.n_started}")
        pid = await actor.host.start(WorkerOrder("head", config, command.argv, {}, ()))
        process = RayProcess(actor, "head", pid, self.place, actor.release)
        self._machines.processes.append(process)
        return process


def counting(n: int, max_tokens: int = 60) -> GenerateRequest:
    return GenerateRequest(TextPrompt(f"{n}:"), SamplingParams(max_tokens=max_tokens))


def counted(n: int, max_tokens: int = 60) -> str:
    return " ".join(map(str, range(n + 1, n + 60)))[:max_tokens]


@asynccontextmanager
async def engine_of(command: WorkerCommand, replicas: Replicas) -> AsyncIterator[tuple[Engine, Machines]]:
    machines = Machines()
    config = EngineConfig("e", "fake.gguf", LoadingParameters(), placement=Placement.RAY)
    engine = Engine(
        config, command, rules=Rules(replicas=ReplicaLimits(replicas.min, replicas.max)), launcher=machines
    )
    try:
        await engine.ensure_ready()
        yield engine, machines
    finally:
        await engine.close()


def n_ready(machines: Machines) -> int:
    return machines.sets[-1].view().ready


async def test_every_stream_goes_on_when_a_worker_is_killed(
    fake_worker: Callable[..., WorkerCommand],
) -> None:
    async with engine_of(fake_worker("step_s=0.01"), Replicas(2, 2)) as (engine, machines):
        await eventually(lambda: n_ready(machines) == 2)
        streams = [engine.generate(counting(100 * n)) for n in range(8)]
        await asyncio.gather(*(stream.ready() for stream in streams))
        had = {each.replica_id: each.in_flight for each in machines.sets[0].view().replicas}
        os.kill(machines.processes[0].pid, signal.SIGKILL)
        answers = await asyncio.gather(*(stream.collect() for stream in streams))
        assert [answer.text for answer in answers] == [counted(100 * n) for n in range(8)]
        assert sorted(had.values()) == [4, 4]
        await eventually(lambda: n_ready(machines) == 2 and machines.n_started == 3)
        assert engine.last_error is not None
        assert "SIGKILL" in engine.last_error


async def test_the_last_worker_is_replaced_as_a_single_one_is(
    fake_worker: Callable[..., WorkerCommand],
) -> None:
    async with engine_of(fake_worker("step_s=0.01"), Replicas()) as (engine, machines):
        stream = engine.generate(counting(7))
        await stream.ready()
        os.kill(machines.processes[0].pid, signal.SIGKILL)
        assert (await stream.collect()).text == counted(7)
        assert len(machines.sets) == 2


async def test_there_are_as_many_as_the_rules_say(fake_worker: Callable[..., WorkerCommand]) -> None:
    async with engine_of(fake_worker(), Replicas(1, 1)) as (engine, machines):
        engine.rules = Rules(replicas=ReplicaLimits(2, 3))
        await eventually(lambda: n_ready(machines) == 2)
        assert engine.n_parallel == 8
        engine.rules = Rules(replicas=1)
        await eventually(lambda: n_ready(machines) == 1)


async def test_what_waits_at_a_full_worker_goes_to_one_that_has_room(
    fake_worker: Callable[..., WorkerCommand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_set, "LOOK_EVERY_S", 0.01)
    async with engine_of(fake_worker("step_s=0.05"), Replicas()) as (engine, machines):
        streams = [engine.generate(counting(100 * n)) for n in range(6)]
        assert [each.in_flight for each in machines.sets[0].view().replicas] == [6]
        engine.rules = Rules(replicas=ReplicaLimits(2, 2))
        await eventually(lambda: n_ready(machines) == 2)
        machines.later_s += 60
        await eventually(lambda: [each.in_flight for each in machines.sets[0].view().replicas] == [4, 2])
        answers = await asyncio.gather(*(stream.collect() for stream in streams))
        assert [answer.text for answer in answers] == [counted(100 * n) for n in range(6)]
        assert engine.in_flight == 0


async def test_one_that_nobody_needed_for_long_ends(
    fake_worker: Callable[..., WorkerCommand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_set, "LOOK_EVERY_S", 0.01)
    async with engine_of(fake_worker(), Replicas(2, 2)) as (engine, machines):
        await eventually(lambda: n_ready(machines) == 2)
        engine.rules = Rules(replicas=ReplicaLimits(1, 2))

        def is_alone_later() -> bool:
            machines.later_s += 60
            return n_ready(machines) == 1

        await eventually(is_alone_later)


async def test_a_machine_is_drained_and_what_runs_there_ends(
    fake_worker: Callable[..., WorkerCommand],
) -> None:
    async with engine_of(fake_worker("step_s=0.01"), Replicas()) as (engine, machines):
        stream = engine.generate(counting(7))
        await stream.ready()
        await asyncio.gather(*machines.sets[0].drain_machine("m1"))
        assert (await stream.collect()).text == counted(7)
        places = [each.node_id for each in machines.sets[0].view().replicas]
        assert places == ["m2"]
        assert (await engine.generate(counting(8)).collect()).text == counted(8)


async def test_another_head_goes_on_with_a_worker(fake_worker: Callable[..., WorkerCommand]) -> None:
    """What the head before had asked for is forgotten, and the worker says again what it is."""
    actor = Actor()
    config = FittedConfig("e", "fake.gguf", replace(_fitted()))
    pid = await actor.host.start(WorkerOrder("first", config, fake_worker("step_s=0.01").argv, {}, ()))
    first = RayProcess(actor, "first", pid, Placed("m", "m"), actor.release)
    assert b'"tag":"ready"' in await _line_with(first, b'"ready"')
    other = replace(config, engine_id="other")
    assert actor.host.attach("second", other) is None
    assert actor.host.attach("second", config) == pid
    second = RayProcess(actor, "second", pid, Placed("m", "m"), actor.release)
    assert b'"tag":"ready"' in await second.stdout.readline()
    assert b"another head" not in await second.stderr.read(0)
    await first.wait()
    assert b'"tag":"fatal"' in await first.stdout.read()
    assert psutil.pid_exists(pid)
    second.kill()
    assert await second.wait() == -signal.SIGKILL


def _fitted() -> Any:
    from kolosal.engines.parameters import FittedParameters  # noqa: PLC0415

    return FittedParameters()


async def _line_with(process: RayProcess, word: bytes) -> bytes:
    while word not in (line := await process.stdout.readline()):
        assert line
    return line
