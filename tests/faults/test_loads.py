"""P10, P11, P12: loads that are given up, shared, and in each other's way."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from kolosal.app import create_app
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.placement import DeviceMemory, Estimate
from kolosal.engines.memory.sizing import FixedSizing, Sizing
from kolosal.engines.parameters import EngineConfig, FittedConfig, FittedParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from kolosal.errors import KolosalError, QueueFull
from tests.engines.helpers import DEADLINE_S, Launched, config, eventually, in_turn, script_worker, starts
from tests.engines.worker.helpers import ask, counting
from tests.fakes import http_client
from tests.faults.drivers import Footprint
from tests.settings import settings_of

FakeWorker = Callable[..., WorkerCommand]
Seen = Callable[[str], None]
Sized = Callable[[int, int], int]

GIB = 1 << 30

# --- P10 ---

PERCENT = (0, 25, 50, 75, 99)

BACK_WITHIN_S = 5.0

MAX_LEFT = 1.05
"""Of the memory of before."""


def stops_at(percent: int) -> WorkerCommand:
    """A load that takes 1 MiB for each percent and gets no further than this one."""
    return script_worker(f"""
        hear()
        held = bytearray()
        for percent in range({percent} + 1):
            held += b"x" * 2**20
            say(b'{{"tag":"progress","fraction":%f}}\\n' % (percent / 100))
        time.sleep(3600)
    """)


def held_bytes() -> int:
    """What this process and its children hold."""
    this = psutil.Process()
    total = 0
    for process in (this, *this.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return int(total)


async def given_up(command: WorkerCommand, percent: int, way: str) -> int:
    """Load an engine so far, then give up in one of three ways; what was held at that time."""
    registry = EngineRegistry(command)
    if way == "the client leaves":
        waiting = asyncio.ensure_future(registry.add(config("a"), load=True))
        await eventually(lambda: bool(registry.list()))
    else:
        await registry.add(config("a"), load=False)
        waiting = asyncio.ensure_future(registry.acquire("a"))
    engine = registry.get("a")
    await eventually(
        lambda: engine.state is EngineState.LOADING and engine.load_progress >= percent / 100 - 1e-6
    )
    held = held_bytes()
    match way:
        case "the client leaves":
            waiting.cancel()
        case "unload":
            await registry.unload("a", limit_s=1)
        case _:
            await registry.remove("a")
    await asyncio.wait([waiting], timeout=DEADLINE_S)
    assert waiting.cancelled() or isinstance(waiting.exception(), KolosalError)
    assert (engine.worker_pid, registry.load_scheduler.estimate_of(engine)) == (None, None)
    await registry.close(drain_s=0)
    return held


@pytest.mark.fault("P10")
async def test_a_load_given_up_anywhere_leaves_no_process_and_no_memory(sized: Sized, seen: Seen) -> None:
    ways = ("the client leaves", "unload", "remove")
    rounds = sized(1, 6)
    await given_up(stops_at(99), 99, "unload")
    before, held = Footprint.of(psutil.Process()), held_bytes()
    most = 0
    for turn in range(rounds):
        for index, percent in enumerate(PERCENT):
            most = max(most, await given_up(stops_at(percent), percent, ways[(turn + index) % len(ways)]))
            await eventually(lambda: held_bytes() < MAX_LEFT * held, BACK_WITHIN_S)
    assert most - held > 90 * 2**20  # else this shows nothing
    await eventually(lambda: Footprint.of(psutil.Process()).left(before) == {}, BACK_WITHIN_S)
    seen(
        f"{rounds * len(PERCENT)} loads given up, {(most - held) / 2**20:.0f} MB given back,"
        f" left {held_bytes() / held - 1:+.1%}"
    )


@pytest.mark.fault("P10")
@pytest.mark.model
async def test_a_real_load_given_up_anywhere_leaves_nothing(
    real_worker: WorkerCommand, smollm2: Path, seen: Seen
) -> None:
    """Read from the disk and not mapped, so that it takes its time and its memory is its own."""
    model = FittedConfig("a", str(smollm2), FittedParameters(n_ctx=256, use_mmap=False))
    before, held = Footprint.of(psutil.Process()), held_bytes()
    reached = []
    for percent in PERCENT:
        one = Launched()
        launch = asyncio.create_task(one.start(real_worker, model))

        def leave(fraction: float, percent: int = percent, launch: asyncio.Task[None] = launch) -> None:
            if fraction >= percent / 100 and not launch.cancelling():
                reached.append(fraction)
                launch.cancel()

        one._on_progress = leave  # type: ignore[method-assign]
        await asyncio.wait([launch], timeout=3 * DEADLINE_S)
        assert launch.cancelled()
        await eventually(lambda: held_bytes() < MAX_LEFT * held, BACK_WITHIN_S)

    await eventually(lambda: Footprint.of(psutil.Process()).left(before) == {}, BACK_WITHIN_S)
    seen(f"a real model, left at {', '.join(f'{fraction:.0%}' for fraction in reached)}")


# --- P11 ---


@pytest.mark.fault("P11")
@pytest.mark.skipif(sys.platform == "win32", reason="the tests' workers start in turn by execv")
async def test_fifty_first_requests_are_answered_by_one_load(
    tmp_path: Path, fake_worker: FakeWorker, seen: Seen
) -> None:
    registry = EngineRegistry(in_turn(tmp_path, fake_worker()))
    await registry.add(config(n_parallel=4), load=False)
    async with http_client(create_app(settings_of(access_log=False), registry)) as client:
        bodies = [{"model": "test", "prompt": f"{start}:", "max_tokens": 9} for start in range(50)]
        answers = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
    await registry.close(drain_s=0)

    texts = [answer.json()["choices"][0]["text"] for answer in answers]
    assert texts == [counting(start, 9) for start in range(50)]
    assert starts(tmp_path) == 1
    seen(f"{starts(tmp_path)} load, {len(texts)} right answers")


# --- P12 ---


@dataclass
class Machine:
    """One that says that less is free as workers run: room for two engines, and a half."""

    registry: EngineRegistry | None = None
    asked: int = 0

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        return FixedSizing(config, Estimate(DeviceMemory(weights=GIB)))

    async def memory(self) -> MachineMemory:
        self.asked += 1
        engines = self.registry.list() if self.registry is not None else []
        running = sum(engine.worker_pid is not None for engine in engines)
        return MachineMemory(4 * GIB, int(2.9 * GIB) - running * GIB)


class Evictions(logging.Handler):
    """Notes each engine that is evicted, and whether it was busy."""

    def __init__(self, registry: EngineRegistry) -> None:
        super().__init__()
        self._registry = registry
        self.names: list[str] = []
        self.busy: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "engine.evicted":
            name = record.__dict__["engine_id"]
            self.names.append(name)
            if self._registry.get(name).busy:
                self.busy.append(name)


async def one_request(registry: EngineRegistry, chance: random.Random) -> str:
    """Ask any of the engines; some leave. How it ended: anything untyped, and any wrong text, is an AssertionError."""
    name, start, length = chance.choice("abc"), chance.randrange(900), chance.randrange(1, 40)
    leaves = chance.random() < 0.1
    try:
        engine = await registry.acquire(name)
        stream = engine.generate(ask(f"{start}:", max_tokens=length))
        try:
            if leaves:
                await anext(stream)
                return "left"
            text = (await stream.collect()).text
        finally:
            stream.abort()
    except QueueFull:
        return "429"
    assert text == counting(start, length)
    return "answered"


@pytest.mark.fault("P12")
async def test_three_engines_in_room_for_two_answer_everybody(
    fake_worker: FakeWorker, sized: Sized, seen: Seen
) -> None:
    n_requests, chance, machine = sized(60, 500), random.Random(12), Machine()  # noqa: S311 - no secret
    clock = asyncio.get_running_loop().time
    command = fake_worker("step_s=0.001", max_queued=4, idle_ttl_s=0.5, room_wait_s=60)
    registry = EngineRegistry(command, sizes=machine, clock=clock)
    registry.load_scheduler.pause_after_s = 0.05
    machine.registry = registry
    for name in "abc":
        await registry.add(config(name, n_parallel=4), load=False)
    evictions, most = Evictions(registry), 0
    rooms = logging.getLogger("kolosal.engines.memory.load_scheduler")
    level = rooms.level
    rooms.addHandler(evictions)
    rooms.setLevel(logging.INFO)
    at_once = asyncio.Semaphore(10)

    async def client() -> str:
        nonlocal most
        async with at_once:
            ended = await one_request(registry, chance)
            most = max(most, sum(engine.worker_pid is not None for engine in registry.list()))
            return ended

    reaping = asyncio.create_task(registry.load_scheduler.reap_idle())
    try:
        async with asyncio.timeout(sized(150, 280)):
            ends = Counter(await asyncio.gather(*(client() for _ in range(n_requests))))
    finally:
        reaping.cancel()
        await asyncio.wait([reaping])
        rooms.removeHandler(evictions)
        rooms.setLevel(level)
        await registry.close(drain_s=0)

    assert ends.total() == n_requests
    assert ends["answered"] > n_requests // 2
    assert evictions.busy == []
    assert len(evictions.names) >= 3
    assert most <= 2
    assert machine.asked > len(evictions.names)
    told = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    seen(f"{told}; {len(evictions.names)} evictions, none of a busy engine")
