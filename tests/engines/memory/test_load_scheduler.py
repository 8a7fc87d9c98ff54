"""Engines in memory, with real worker processes: memory for a load, idle engines, replacing and unloading."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import Fatal, Ready, StepOutputs, encode
from kolosal.engines.memory import load_scheduler
from kolosal.engines.memory.machine import Gpu, MachineMemory, read_memory
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.memory.placement import DeviceMemory, Estimate
from kolosal.engines.memory.policy import DEFAULT_RULES, Rules
from kolosal.engines.memory.sizing import FileSizes, FixedSizing, ModelSizing, Sizing
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.persist import EngineFile, load_stored
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from kolosal.engines.stream import RequestStream
from kolosal.errors import Conflict, EngineNotFound, InsufficientMemory, LoadFailed, NotFound, QueueFull
from kolosal.models.models_file import ModelsFile
from kolosal.models.settings import ModelsSettings
from tests.engines.helpers import DEADLINE_S, INFO, config, eventually, gone, script_worker
from tests.engines.memory.real_models import REAL_MODELS
from tests.engines.worker.helpers import ask, counting
from tests.gguf_files import gguf
from tests.settings import with_settings

FakeWorker = Callable[..., WorkerCommand]
SLOW = "step_s=0.005"
READY = script_worker("ready(); until_the_end()")
GIB = 1 << 30


@dataclass
class FakeSizes:
    """Every engine takes 1 GiB, or what it is said to take; the machine has more than enough but for GPU 0."""

    sizes: dict[str, Estimate] = field(default_factory=dict)

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        return FixedSizing(config, self.sizes.get(config.engine_id, Estimate(DeviceMemory(weights=GIB))))

    async def memory(self) -> MachineMemory:
        return MachineMemory(1000 * GIB, 1000 * GIB)


class Clock:
    """A time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def registry_of(
    command: WorkerCommand = READY,
    *engines: str,
    room_for: float = 2,
    clock: Callable[[], float] | None = None,
    sizes: dict[str, Estimate] | None = None,
    engine_file: EngineFile | None = None,
    room_wait_s: float = 10.0,
    pause_after_s: float = 0.0,
    rules: Rules = DEFAULT_RULES,
) -> AsyncIterator[EngineRegistry]:
    """A registry with room for some engines, closed at the end."""
    registry = EngineRegistry(
        with_settings(
            command, max_queued=500, memory_limit_bytes=int(room_for * GIB), room_wait_s=room_wait_s
        ),
        sizes=FakeSizes(sizes or {}),
        engine_file=engine_file,
        clock=clock or Clock(),
    )
    registry.load_scheduler.pause_after_s = pause_after_s
    try:
        for engine_id in engines:
            await registry.add(config(engine_id), load=False, rules=rules)
        yield registry
    finally:
        await registry.close(drain_s=0)


def loaded(registry: EngineRegistry) -> set[str]:
    return {engine.engine_id for engine in registry.list() if engine.state is EngineState.READY}


def begin(engine: Engine, max_tokens: int | None = None) -> RequestStream:
    return engine.generate(ask("5:", max_tokens=max_tokens))


async def answer(registry: EngineRegistry, name: str, start: int) -> bool:
    """One request, as a route makes it: whether its answer is right and whole."""
    engine = await registry.acquire(name)
    whole = await engine.generate(ask(f"{start}:", max_tokens=12)).collect()
    return whole.text == counting(start, 12)


# --- memory for a load ---


async def test_cells_that_nobody_has_used_yet_are_kept_for_their_engine() -> None:
    """The system counts them as free, and takes them from the machine when they are written to."""
    ready = encode(Ready(replace(INFO, unused_bytes=4 * GIB)))
    used = encode(StepOutputs((), kv_cells=INFO.kv_pool_tokens // 4))
    command = script_worker(f"hear(); say({ready!r}); hear(); say({used!r}); until_the_end()")
    size = Estimate(DeviceMemory(weights=GIB, kv_cache=4 * GIB))
    async with registry_of(command, "a", room_for=5000, sizes={"a": size}) as registry:
        scheduler, engine = registry.load_scheduler, registry.get("a")

        async def free() -> int:
            return (await scheduler.preview(config("b"))).free.host

        before = await free()
        await engine.ensure_ready()
        after_loading = await free()
        begin(engine)
        await eventually(lambda: engine.kv_cells is not None)

        assert [before - after_loading, before - await free()] == [4 * GIB, 3 * GIB]

        await engine.unload()

        assert await free() == before


async def test_weights_that_were_copied_from_their_file_count_once() -> None:
    """What is only mapped the system counts as free; a copy it sees."""
    ready = encode(Ready(replace(INFO, repacked_bytes=3 * GIB)))
    command = script_worker(f"hear(); say({ready!r}); until_the_end()")
    size = Estimate(DeviceMemory(weights=4 * GIB), mapped=4 * GIB)
    async with registry_of(command, "a", room_for=5000, sizes={"a": size}) as registry:
        before = (await registry.load_scheduler.preview(config("b"))).free.host
        await registry.get("a").ensure_ready()

        assert before - (await registry.load_scheduler.preview(config("b"))).free.host == GIB


async def test_the_least_recently_used_engine_makes_room() -> None:
    clock = Clock()
    async with registry_of(READY, *"abc", clock=clock) as registry:
        for name in "abab"[:3]:  # a, b, a
            await registry.acquire(name)
            clock.now += 1
        await registry.acquire("c")

        assert loaded(registry) == {"a", "c"}


async def test_nobody_goes_where_there_is_room() -> None:
    async with registry_of(READY, *"abc", room_for=3) as registry:
        for name in "abc":
            await registry.acquire(name)

        assert loaded(registry) == set("abc")


async def test_a_busy_engine_stays_and_the_load_waits_for_it(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), *"abc") as registry:
        streams = [begin(await registry.acquire("a"), 30), begin(await registry.acquire("b"))]
        third = asyncio.create_task(registry.acquire("c"))
        whole = await streams[0].collect()

        assert whole.text == counting(5, 30)
        assert (await third).state is EngineState.READY
        assert loaded(registry) == {"b", "c"}
        streams[1].abort()


async def test_a_load_that_waits_too_long_is_told_the_numbers(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), *"ab", room_for=1.5, room_wait_s=0.2) as registry:
        stream = begin(await registry.acquire("a"))
        with pytest.raises(
            InsufficientMemory, match=r"'b' needs 1.0 GiB of host memory.* 0.2 seconds"
        ) as refused:
            await registry.acquire("b")

        assert refused.value.retry_after_s
        assert loaded(registry) == {"a"}
        stream.abort()


async def test_pinned_engines_are_refused_room_to_others_at_once() -> None:
    async with registry_of(READY, *"ab", room_for=1.5, rules=Rules(pin=True)) as registry:
        await registry.acquire("a")
        with pytest.raises(InsufficientMemory, match="Free are 512 MiB of host memory"):
            await registry.acquire("b")

        assert loaded(registry) == {"a"}


async def test_engines_of_an_exclusive_group_are_never_in_memory_together(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), *"abc", room_for=9) as registry:
        registry.known = exclusive("a", "b")
        stream = begin(await registry.acquire("a"), 20)
        await registry.acquire("c")
        second = asyncio.create_task(registry.acquire("b"))
        assert (await stream.collect()).text == counting(5, 20)
        await second

        assert loaded(registry) == {"b", "c"}

        registry.known = exclusive("b", "c")  # c was used before
        registry.load_scheduler.reap_expired()
        await eventually(lambda: loaded(registry) == {"b"})

        registry.set_rules("b", Rules(pin=True))
        with pytest.raises(InsufficientMemory, match="'c' cannot be loaded beside 'b', which is pinned"):
            await registry.acquire("c")


def exclusive(*names: str) -> ModelsFile:
    """What a file says that makes these a group."""
    group = {"models": names, "exclusive": True}
    return ModelsFile.of(ModelsSettings.model_validate({"groups": {"g": group}}))


async def test_what_never_fits_is_refused_and_nobody_goes_for_it() -> None:
    sizes = {
        "big": Estimate(DeviceMemory(weights=5 * GIB)),
        "gpu": Estimate(DeviceMemory(), {0: DeviceMemory(weights=GIB)}),
    }
    async with registry_of(READY, "a", *sizes, sizes=sizes) as registry:
        await registry.acquire("a")
        with pytest.raises(InsufficientMemory, match=r"needs 5.0 GiB of host memory"):
            await registry.acquire("big")
        with pytest.raises(InsufficientMemory, match=r"1.0 GiB on GPU 0. Free are 0 MiB on GPU 0"):
            await registry.acquire("gpu")

        assert loaded(registry) == {"a"}


async def test_an_engine_gets_the_cells_that_there_is_room_for(
    fake_worker: FakeWorker, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    model = EngineConfig("a", str(path), LoadingParameters(n_ctx=10_000, n_parallel=8))
    sizes = FileSizes(read_memory)
    memory = await sizes.memory()
    whole, half = (await sizes.of(model, memory)).plans(memory.free)[:2]
    limit = (whole.need.host + half.need.host) // 2
    registry = EngineRegistry(with_settings(fake_worker(), memory_limit_bytes=limit), sizes=sizes)
    engine = await registry.add(model, load=True)

    assert engine.info is not None
    assert half.estimate.cells <= engine.info.kv_pool_tokens < whole.estimate.cells
    assert engine.config == model
    held = registry.load_scheduler.estimate_of(engine)
    assert held is not None
    assert held.cells == engine.info.kv_pool_tokens
    assert held.need.host <= limit
    await registry.close(drain_s=0)


# --- what is chosen for a load ---


@dataclass
class GpuSizes:
    """Every engine is a model of 80 layers; the machine has one GPU."""

    free_gib: float
    shape: ModelShape = field(default_factory=lambda: _shape("llama-3.3-70b"))

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        return ModelSizing(self.shape, config.parameters, None, memory.free.gpus)

    async def memory(self) -> MachineMemory:
        gpu = Gpu(0, "GPU 0", 80 * GIB, int(self.free_gib * GIB))
        return MachineMemory(1000 * GIB, 1000 * GIB, (gpu,))


def _shape(name: str) -> ModelShape:
    return next(model.shape() for model in REAL_MODELS if model.name == name)


@asynccontextmanager
async def gpu_registry(
    command: WorkerCommand, free_gib: float, *engines: EngineConfig, room_wait_s: float = 10.0
) -> AsyncIterator[tuple[EngineRegistry, GpuSizes]]:
    """A registry on a machine with a GPU, closed at the end."""
    sizes = GpuSizes(free_gib)
    registry = EngineRegistry(
        with_settings(command, room_wait_s=room_wait_s), sizes=sizes, clock=time.monotonic
    )
    try:
        for engine in engines:
            await registry.add(engine, load=False)
        yield registry, sizes
    finally:
        await registry.close(drain_s=0)


def automatic(engine_id: str, **given: Any) -> EngineConfig:
    return EngineConfig(engine_id, "fake.gguf", LoadingParameters(**given))


async def test_layers_that_do_not_fit_stay_on_the_host_and_a_reload_may_choose_anew(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    command = script_worker(
        f"open({str(heard)!r}, 'ab').write(hear()); say(sys.argv[1].encode()); until_the_end()"
    )
    async with gpu_registry(command, 24, automatic("a", n_ctx="auto")) as (registry, sizes):
        engine = await registry.acquire("a")
        plan = engine.plan
        assert plan is not None
        assert 0 < plan.parameters.n_gpu_layers < 81
        assert {choice.field for choice in plan.choices} == {"n_gpu_layers", "n_ctx", "kv_pool_tokens"}
        await engine.unload()
        sizes.free_gib = 80
        await registry.acquire("a")
        assert engine.plan is not None
        assert (engine.plan.parameters.n_gpu_layers, engine.plan.rank) == (81, 0)
    told = [
        orjson.loads(line)["config"]["parameters"]["n_gpu_layers"] for line in heard.read_bytes().splitlines()
    ]
    assert told == [plan.parameters.n_gpu_layers, 81]


async def test_values_that_were_given_are_not_fitted() -> None:
    async with gpu_registry(READY, 24, automatic("a", n_gpu_layers=100)) as (registry, _):
        with pytest.raises(InsufficientMemory, match=r"GPU 0. Free are 24.0 GiB on GPU 0"):
            await registry.acquire("a")


async def test_a_busy_engine_is_waited_for_where_more_would_fit_but_not_for_ever() -> None:
    ready = encode(Ready(replace(INFO, n_gpu_layers=81)))
    command = script_worker(f"hear(); say({ready!r}); until_the_end()")
    engines = (automatic("a"), automatic("b"))
    async with gpu_registry(command, 60, *engines, room_wait_s=0.4) as (registry, sizes):
        first = await registry.acquire("a")
        sizes.free_gib = 10  # the first has the rest
        stream = begin(first)
        second = await registry.acquire("b")
        assert second.plan is not None
        assert 0 < second.plan.parameters.n_gpu_layers < 30
        stream.abort()


async def test_a_load_that_finds_less_memory_than_was_estimated_is_tried_with_less(tmp_path: Path) -> None:
    heard, fatal = tmp_path / "heard", encode(Fatal("cudaMalloc failed: out of memory", lacked_memory=True))
    command = script_worker(
        f"""
        open({str(heard)!r}, 'ab').write(hear())
        if open({str(heard)!r}, 'rb').read().count(b"hello") < 3:
            say({fatal!r}); sys.exit(1)
        say(sys.argv[1].encode()); until_the_end()
        """
    )
    async with gpu_registry(command, 24, automatic("a")) as (registry, _):
        engine = await registry.acquire("a")
        assert engine.plan is not None
    told = [
        orjson.loads(line)["config"]["parameters"]["n_gpu_layers"] for line in heard.read_bytes().splitlines()
    ]
    assert len(told) == 3
    assert told == sorted(set(told), reverse=True)
    assert engine.plan.parameters.n_gpu_layers == told[-1]


@pytest.mark.fault("P11")
async def test_fifty_first_requests_start_one_worker(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    command = script_worker(f"open({str(starts)!r}, 'a').write('x'); ready(); until_the_end()")
    async with registry_of(command, "a") as registry:
        engines = await asyncio.gather(*(registry.acquire("a") for _ in range(50)))

        assert len({engine.worker_pid for engine in engines}) == 1
        assert starts.read_text() == "x"


async def test_a_caller_who_leaves_does_not_stop_a_load_that_waits_for_room(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), *"ab", room_for=1) as registry:
        stream = begin(await registry.acquire("a"), 30)
        leaver, stayer = (asyncio.create_task(registry.acquire("b")) for _ in range(2))
        await asyncio.sleep(0)
        leaver.cancel()
        await stream.collect()

        assert (await stayer).state is EngineState.READY
        assert leaver.cancelled()


async def test_a_load_that_nobody_waits_for_pushes_nobody_out(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), *"ab", room_for=1) as registry:
        stream = begin(await registry.acquire("a"), 30)
        leaver = asyncio.create_task(registry.acquire("b"))
        await eventually(lambda: registry.get("b").state is EngineState.LOADING)
        leaver.cancel()
        await stream.collect()
        await eventually(lambda: registry.get("b").state is EngineState.UNLOADED)

        assert loaded(registry) == {"a"}


async def test_loads_that_wait_are_bounded(fake_worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_scheduler, "MAX_WAITING_LOADS", 1)
    async with registry_of(fake_worker(SLOW), *"abc", room_for=1) as registry:
        stream = begin(await registry.acquire("a"))
        waiting = asyncio.create_task(registry.acquire("b"))
        await eventually(lambda: registry.get("b").state is EngineState.LOADING)
        with pytest.raises(QueueFull):
            await registry.acquire("c")
        stream.abort()

        assert (await waiting).state is EngineState.READY


async def test_an_engine_in_constant_use_lets_the_next_one_in(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), *"ab", room_for=1) as registry:
        first = begin(await registry.acquire("a"), 30)
        waiting = asyncio.create_task(answer(registry, "b", 3))
        await eventually(lambda: registry.get("a") in registry.load_scheduler.admission._paused)
        again = asyncio.create_task(answer(registry, "a", 7))  # held back, or b would wait for it too
        await first.collect()

        assert await waiting
        assert not again.done()
        assert await again


@pytest.mark.fault("P12")
async def test_three_models_in_room_for_two_answer_all(fake_worker: FakeWorker) -> None:
    """None is ended while it answers: then a text would be short, or its request an error."""
    chance = random.Random(7)  # noqa: S311 - which engine is asked next

    async with registry_of(fake_worker(), *"abc", pause_after_s=0.05, room_wait_s=60) as registry:
        asked = [answer(registry, chance.choice("abc"), chance.randrange(90)) for _ in range(100)]
        assert all(await asyncio.gather(*asked))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_happens_every_waiter_ends(fake_worker: FakeWorker, seed: int) -> None:
    """Requests, clients that leave, unloads and replacements at random: right answers or typed errors, and true books."""
    chance = random.Random(seed)  # noqa: S311 - what happens next

    async def request(registry: EngineRegistry) -> None:
        name, start = chance.choice("abc"), chance.randrange(90)
        engine = await registry.acquire(name)
        stream = engine.generate(ask(f"{start}:", max_tokens=chance.randrange(1, 20)))
        engine.keep_alive(chance.choice([None, 0, 5, -1]))
        try:
            whole = await stream.collect()
            assert counting(start, 20).startswith(whole.text)
        finally:
            stream.abort()

    async def happening(registry: EngineRegistry) -> None:
        await asyncio.sleep(chance.random() / 2)
        name = chance.choice("abc")
        try:
            match chance.randrange(10):
                case 0:
                    await registry.unload(name, limit_s=chance.choice([0, 5]))
                case 1:
                    await registry.replace(
                        config(name, n_ctx=chance.randrange(64, 4096)), load=chance.random() < 0.7
                    )
                case 2:
                    await registry.load(name)
                case 3:
                    async with asyncio.timeout(chance.random()):  # a client that leaves
                        await request(registry)
                case _:
                    await request(registry)
        except (Conflict, LoadFailed, InsufficientMemory, TimeoutError):
            pass

    clock = asyncio.get_running_loop().time
    async with registry_of(
        fake_worker(), *"abc", clock=clock, pause_after_s=0.05, room_wait_s=60
    ) as registry:
        reaping = asyncio.create_task(registry.load_scheduler.reap_idle())
        await asyncio.gather(*(happening(registry) for _ in range(80)))
        reaping.cancel()
        await asyncio.wait([reaping])
        scheduler = registry.load_scheduler

        await eventually(lambda: len(scheduler._accounting._entries) == len(loaded(registry)))
        assert (scheduler._waiting, scheduler.admission._paused, scheduler._without_evicting) == ([], [], {})
        assert len(loaded(registry)) <= 2
        assert not any(engine.busy for engine in registry.list())


# --- memory that was short all the same ---


def short_of_memory(marker: Path, times: int) -> WorkerCommand:
    """The worker of engine `b` says so many times that memory is short."""
    fatal = encode(Fatal("failed to allocate CPU buffer of size 123", lacked_memory=True))
    return script_worker(f"""
        import json
        marker = {str(marker)!r}
        line = hear()
        if json.loads(line)["config"]["engine_id"] == "b":
            open(marker, "a").write("x")
            if len(open(marker).read()) <= {times}:
                say({fatal!r})
                sys.exit(1)
        say(sys.argv[1].encode())
        until_the_end()
    """)


@pytest.mark.fault("M1")
async def test_a_load_without_memory_is_tried_once_more_without_the_idle(tmp_path: Path) -> None:
    async with registry_of(short_of_memory(tmp_path / "b", 1), *"ab") as registry:
        await registry.acquire("a")
        await registry.acquire("b")

        assert loaded(registry) == {"b"}


@pytest.mark.fault("M1")
async def test_a_second_failure_is_insufficient_memory(tmp_path: Path) -> None:
    async with registry_of(short_of_memory(tmp_path / "b", 9), *"ab") as registry:
        await registry.acquire("a")
        with pytest.raises(InsufficientMemory, match="failed to allocate CPU buffer"):
            await registry.acquire("b")

        assert (tmp_path / "b").read_text() == "xx"
        assert registry.load_scheduler.estimate_of(registry.get("b")) is None


@pytest.mark.fault("M1")
async def test_without_an_idle_engine_it_is_not_tried_again(tmp_path: Path) -> None:
    async with registry_of(short_of_memory(tmp_path / "b", 9), *"ab", rules=Rules(pin=True)) as registry:
        await registry.acquire("a")
        with pytest.raises(InsufficientMemory):
            await registry.acquire("b")

        assert (tmp_path / "b").read_text() == "x"
        assert loaded(registry) == {"a"}


# --- idle engines ---


async def test_an_idle_engine_is_unloaded_when_its_time_is_over() -> None:
    clock = Clock()
    async with registry_of(READY, "a", clock=clock) as registry:
        engine = await registry.acquire("a")
        pid = engine.worker_pid or 0
        clock.now += 299
        assert registry.load_scheduler.reap_expired() == []
        assert registry.load_scheduler.expires_in_s(engine) == 1
        registry.list()
        clock.now += 1
        await asyncio.gather(*registry.load_scheduler.reap_expired())

        assert (engine.state, gone(pid), engine.last_error) == (EngineState.UNLOADED, True, None)
        assert registry.load_scheduler.estimate_of(engine) is None
        assert (await registry.acquire("a")).worker_pid not in (None, pid)


async def test_its_time_begins_with_the_end_of_the_last_request(fake_worker: FakeWorker) -> None:
    clock = Clock()
    async with registry_of(fake_worker(SLOW), "a", clock=clock) as registry:
        stream = begin(await registry.acquire("a"))
        clock.now += 10_000
        assert registry.load_scheduler.reap_expired() == []
        stream.abort()
        clock.now += 299
        assert registry.load_scheduler.reap_expired() == []
        clock.now += 1
        assert len(registry.load_scheduler.reap_expired()) == 1


@pytest.mark.parametrize("rules", [Rules(pin=True), Rules(idle_ttl_s=0)])
async def test_some_engines_stay(rules: Rules) -> None:
    clock = Clock()
    async with registry_of(READY, "a", clock=clock, rules=rules) as registry:
        await registry.acquire("a")
        clock.now += 1e9

        assert registry.load_scheduler.reap_expired() == []


async def test_a_request_can_say_how_long_the_engine_stays(fake_worker: FakeWorker) -> None:
    clock = Clock()
    async with registry_of(fake_worker(), "a", clock=clock) as registry:
        engine = await registry.acquire("a")
        stream = begin(engine, 5)
        engine.keep_alive(-1)
        await stream.collect()
        assert registry.load_scheduler.expires_in_s(engine) is None
        stream = begin(await registry.acquire("a"), 5)  # says nothing, so the daemon's time counts again
        await stream.collect()
        assert registry.load_scheduler.expires_in_s(engine) == 300
        stream = begin(await registry.acquire("a"), 5)
        engine.keep_alive(0)
        assert registry.load_scheduler.reap_expired() == []
        assert (await stream.collect()).text == counting(5, 5)
        await asyncio.gather(*registry.load_scheduler.reap_expired())

        assert engine.state is EngineState.UNLOADED


async def test_an_engine_is_unloaded_without_being_asked_to(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        reaping = asyncio.create_task(registry.load_scheduler.reap_idle())
        engine = await registry.acquire("a")
        stream = begin(engine, 5)
        engine.keep_alive(0)
        await stream.collect()
        await eventually(lambda: engine.state is EngineState.UNLOADED)
        reaping.cancel()
        await asyncio.wait([reaping])


async def test_a_request_that_comes_while_an_engine_is_unloaded_loads_it_again() -> None:
    async with registry_of(script_worker("ready(); until_the_end(); time.sleep(0.1)"), "a") as registry:
        engine = await registry.acquire("a")
        pid = engine.worker_pid
        engine.unload()
        assert engine.state is EngineState.UNLOADING
        assert (await registry.acquire("a")).worker_pid not in (None, pid)


# --- loading and unloading by hand ---


async def test_an_unloaded_engine_keeps_its_name(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a") as registry:
        engine = await registry.load("a")
        stream = begin(engine, 20)
        pid = engine.worker_pid or 0
        await registry.unload("a", limit_s=DEADLINE_S)

        assert (await stream.collect()).text == counting(5, 20)
        assert (registry.get("a").state, gone(pid)) == (EngineState.UNLOADED, True)
        await registry.unload("a", limit_s=0)


async def test_an_unload_gives_up_where_requests_take_longer(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a") as registry:
        stream = begin(await registry.acquire("a"))
        with pytest.raises(Conflict, match=r"still has 1 requests after 0.05 seconds") as conflict:
            await registry.unload("a", limit_s=0.05)

        assert conflict.value.code == "engine_busy"
        assert loaded(registry) == {"a"}
        assert (await registry.acquire("a")).state is EngineState.READY
        stream.abort()


@pytest.mark.parametrize("end", ["unload", "remove"])
async def test_a_load_under_way_is_given_up(fake_worker: FakeWorker, end: str) -> None:
    async with registry_of(fake_worker("load_hang"), "a") as registry:
        loading = asyncio.create_task(registry.load("a"))
        await eventually(lambda: registry.get("a").load_progress > 0)
        engine = registry.get("a")
        if end == "unload":
            await registry.unload("a", limit_s=0)
        else:
            await registry.remove("a")
        await asyncio.wait([loading])

        assert isinstance(loading.exception(), LoadFailed if end == "unload" else NotFound)
        assert registry.load_scheduler.estimate_of(engine) is None


async def test_unknown_engines_are_not_found() -> None:
    async with registry_of() as registry:
        for call in (
            registry.load("x"),
            registry.unload("x", limit_s=0),
            registry.replace(config("x"), load=True),
        ):
            with pytest.raises(EngineNotFound):
                await call


# --- replacing ---


async def test_the_new_engine_takes_over_and_the_old_one_finishes(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a") as registry:
        old = await registry.acquire("a")
        pid = old.worker_pid or 0
        stream = begin(old, 40)
        new = await registry.replace(config("a", n_ctx=128), load=True)

        assert not gone(pid)
        assert registry.get("a") is new
        assert (
            await (await registry.acquire("a")).generate(ask("7:", max_tokens=3)).collect()
        ).text == counting(7, 3)
        assert (await stream.collect()).text == counting(5, 40)
        await eventually(lambda: gone(pid))


async def test_without_room_for_both_the_old_one_goes_first(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", room_for=1) as registry:
        old = await registry.acquire("a")
        stream = begin(old, 30)
        replacing = asyncio.create_task(registry.replace(config("a", n_ctx=128), load=True))
        await eventually(lambda: old in registry.load_scheduler.admission._paused)
        waiting = asyncio.create_task(registry.acquire("a"))

        assert (await stream.collect()).text == counting(5, 30)
        assert await waiting is await replacing is registry.get("a")
        assert registry.get("a").config.parameters.n_ctx == 128


async def test_a_failed_replacement_leaves_the_old_one_serving(tmp_path: Path) -> None:
    fatal = encode(Fatal("broken"))
    command = script_worker(f"""
        line = hear()
        if b'"n_ctx":128' in line:
            say({fatal!r})
            sys.exit(1)
        say(sys.argv[1].encode())
        until_the_end()
    """)
    for room_for in (2, 1):
        async with registry_of(command, "a", room_for=room_for) as registry:
            old = await registry.acquire("a")
            pid = old.worker_pid
            with pytest.raises(LoadFailed, match="broken"):
                await registry.replace(config("a", n_ctx=128), load=True)

            assert await registry.acquire("a") is old
            assert (old.worker_pid == pid) == (room_for == 2)


async def test_only_one_replaces_an_engine_at_a_time(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker("load_hang"), "a") as registry:
        first = asyncio.create_task(registry.replace(config("a"), load=True))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="already being replaced"):
            await registry.replace(config("a"), load=True)
        first.cancel()
        await asyncio.wait([first])

        assert first.cancelled()
        assert (await registry.replace(config("a", n_ctx=9), load=False)).config.parameters.n_ctx == 9


async def test_an_engine_removed_while_it_is_replaced_stays_removed(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        replacing = asyncio.create_task(registry.replace(config("a"), load=True))
        await asyncio.sleep(0)
        registry.remove("a")
        await asyncio.wait([replacing])

        assert isinstance(replacing.exception(), EngineNotFound)
        assert registry.list() == []


# --- over restarts ---


async def test_engines_added_at_run_time_are_kept(tmp_path: Path) -> None:
    engine_file = EngineFile(tmp_path)
    async with registry_of(engine_file=engine_file) as registry:
        await registry.add(config("configured"), load=False)
        for name in "abc":
            await registry.add(config(name), load=False, rules=Rules(pin=True), keep=True)
        await registry.replace(config("b", n_ctx=99), load=False, keep=True)
        await registry.remove("c")
        with pytest.raises(Conflict):
            await registry.add(config("a"), load=False, keep=True)
    stored = load_stored(tmp_path).engines

    assert [(one.config.engine_id, one.config.parameters.n_ctx, one.rules.pin) for one in stored] == [
        ("a", 4096, True),
        ("b", 99, False),
    ]


async def test_an_engine_that_cannot_load_is_not_kept(tmp_path: Path, fake_worker: FakeWorker) -> None:
    engine_file = EngineFile(tmp_path)
    async with registry_of(fake_worker("load_error"), engine_file=engine_file) as registry:
        with pytest.raises(LoadFailed):
            await registry.add(config("a"), load=True, keep=True)
    assert load_stored(tmp_path).engines == []
