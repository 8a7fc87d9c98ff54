from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from kolosal.engines.stream import RequestStream
from kolosal.errors import Conflict, Draining, EngineDied, LoadFailed, NotFound
from tests.engines.helpers import DEADLINE_S, config, eventually, gone, script_worker
from tests.engines.worker.helpers import ask, counting

FakeWorker = Callable[..., WorkerCommand]
SLOW = "step_s=0.005"


@asynccontextmanager
async def registry_of(
    command: WorkerCommand, *engines: str, load: bool = False, default: str | None = None
) -> AsyncIterator[EngineRegistry]:
    """A registry with some engines, closed at the end."""
    registry = EngineRegistry(command, default_engine=default)
    try:
        for engine_id in engines:
            await registry.add(config(engine_id), load=load)
        yield registry
    finally:
        await registry.close(drain_s=0)


async def begin(engine: Engine, max_tokens: int | None = None) -> RequestStream:
    """A stream that has begun."""
    stream = engine.generate(ask("5:", max_tokens=max_tokens))
    await asyncio.wait_for(stream.ready(), DEADLINE_S)
    return stream


# --- adding ---


async def test_added_engine_is_loaded(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", load=True) as registry:
        assert registry.get("a").state is EngineState.READY


async def test_engine_may_be_added_unloaded(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        assert registry.get("a").worker_pid is None


async def test_name_that_is_taken_is_a_conflict(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        with pytest.raises(Conflict, match="already exists") as conflict:
            await registry.add(config("a"), load=False)

        assert (conflict.value.param, conflict.value.code) == ("engine_id", "engine_id_exists")


async def test_name_of_an_engine_that_is_loading_is_taken(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker()) as registry:
        adding = asyncio.create_task(registry.add(config("a"), load=True))
        await asyncio.sleep(0)
        with pytest.raises(Conflict):
            await registry.add(config("a"), load=True)

        assert (await adding).engine_id == "a"


async def test_failed_load_frees_the_name(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker("load_error")) as registry:
        with pytest.raises(LoadFailed):
            await registry.add(config("a"), load=True)

        assert registry.list() == []


async def test_cancelled_add_frees_the_name(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker("load_hang")) as registry:
        adding = asyncio.create_task(registry.add(config("a"), load=True))
        await eventually(lambda: registry.get("a").load_progress > 0 if registry.list() else False)
        adding.cancel()
        await asyncio.wait([adding])

        assert (adding.cancelled(), registry.list()) == (True, [])


async def test_engines_are_listed_in_the_order_they_were_added(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "b", "a", "c") as registry:
        assert [engine.engine_id for engine in registry.list()] == ["b", "a", "c"]


async def test_listing_loads_nothing(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        registry.list()

        assert registry.get("a").state is EngineState.UNLOADED


async def test_unknown_name_is_not_found(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        for name in ("b", "", "a:b", "aa", "latest", ":latest", "/a"):
            with pytest.raises(NotFound):
                registry.get(name)


@pytest.mark.parametrize("name", ["a", "a:latest", "A", " a ", "A:Latest", "a:latest ", "\ta"])
async def test_what_clients_add_to_a_name_changes_nothing(fake_worker: FakeWorker, name: str) -> None:
    async with registry_of(fake_worker(), "a", "b") as registry:
        assert registry.get(name).engine_id == "a"
        assert (await registry.acquire(name)).engine_id == "a"


async def test_a_name_that_could_be_two_is_neither(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", "A", "b", "b:latest", "c:latest") as registry:
        found = {
            name: registry.get(name).engine_id for name in ("a", "A", "A:latest", "b", "b:latest", "c", "C")
        }
        assert found == {
            "a": "a",
            "A": "A",
            "A:latest": "A",
            "b": "b",
            "b:latest": "b:latest",
            "c": "c:latest",
            "C": "c:latest",
        }
        for name in ("B", "B:LATEST", "a:LATEST"):
            with pytest.raises(NotFound):
                registry.get(name)


# --- acquiring ---


async def test_acquired_engine_is_loaded(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        assert (await registry.acquire("a")).state is EngineState.READY


async def test_two_engines_answer_each_for_itself(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", "b") as registry:
        a, b = [await registry.acquire(name) for name in ("a", "b")]
        answers = await asyncio.gather(
            a.generate(ask("5:", max_tokens=30)).collect(), b.generate(ask("70:", max_tokens=30)).collect()
        )

        assert [answer.text for answer in answers] == [counting(5, 30), counting(70, 30)]
        assert a.worker_pid != b.worker_pid


async def test_without_a_name_the_default_engine_is_acquired(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", "b", default="b") as registry:
        assert (await registry.acquire(None)).engine_id == "b"


async def test_without_a_name_and_a_default_the_first_engine_is_acquired(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", "b") as registry:
        assert (await registry.acquire("")).engine_id == "a"


async def test_default_engine_that_does_not_exist_is_not_found(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", default="b") as registry:
        with pytest.raises(NotFound, match="'b'"):
            await registry.acquire(None)


async def test_empty_registry_says_how_to_add_an_engine(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker()) as registry:
        with pytest.raises(NotFound, match="POST /engines"):
            await registry.acquire(None)


async def test_unknown_model_is_not_found_and_named(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        with pytest.raises(NotFound, match="'b'"):
            await registry.acquire("b")


async def test_engine_that_cannot_load_keeps_its_name(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker("load_error"), "a") as registry:
        with pytest.raises(LoadFailed):
            await registry.acquire("a")

        assert registry.get("a").state is EngineState.UNLOADED


async def test_many_first_requests_get_one_engine(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        engines = await asyncio.gather(*(registry.acquire("a") for _ in range(20)))

        assert len({engine.worker_pid for engine in engines}) == 1


# --- removing ---


async def test_removed_engine_is_not_acquired(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        await registry.remove("a")
        with pytest.raises(NotFound):
            await registry.acquire("a")


async def test_removing_an_unknown_engine_is_not_found(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker()) as registry:
        with pytest.raises(NotFound):
            registry.remove("a")


async def test_removed_engine_finishes_its_streams(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", load=True) as registry:
        stream = await begin(registry.get("a"), 30)
        registry.remove("a")

        assert (await stream.collect()).text == counting(5, 30)


async def test_worker_of_a_removed_engine_ends_after_its_streams(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", load=True) as registry:
        pid = registry.get("a").worker_pid or 0
        stream = await begin(registry.get("a"), 10)
        retired = registry.remove("a")
        await stream.collect()
        await retired

        assert gone(pid)


async def test_name_of_a_removed_engine_is_free_at_once(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", load=True) as registry:
        await begin(registry.get("a"))
        registry.remove("a")

        assert (await registry.add(config("a"), load=True)).state is EngineState.READY


async def test_removal_leaves_other_engines_alone(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", "b", load=True) as registry:
        stream = await begin(registry.get("b"), 30)
        await registry.remove("a")

        assert (await stream.collect()).text == counting(5, 30)


async def test_removal_while_loading_tells_the_waiting_request(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker("load_hang"), "a") as registry:
        waiting = asyncio.create_task(registry.acquire("a"))
        await eventually(lambda: registry.get("a").load_progress > 0)
        await registry.remove("a")
        await asyncio.wait([waiting])

        assert isinstance(waiting.exception(), NotFound)


async def test_caller_who_does_not_wait_for_a_removal_does_not_stop_it(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", load=True) as registry:
        pid = registry.get("a").worker_pid or 0
        registry.remove("a")
        await eventually(lambda: gone(pid))


# --- closing ---


async def test_close_lets_streams_finish(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", "b", load=True) as registry:
        streams = [await begin(registry.get(name), 30) for name in ("a", "b")]
        await registry.close(drain_s=DEADLINE_S)

        assert [(await stream.collect()).text for stream in streams] == [counting(5, 30)] * 2


async def test_close_fails_streams_that_are_late(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", load=True) as registry:
        stream = await begin(registry.get("a"))
        await registry.close(drain_s=0.05)
        with pytest.raises(EngineDied):
            await stream.collect()


async def test_close_ends_all_workers(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", "b", load=True) as registry:
        pids = [engine.worker_pid or 0 for engine in registry.list()]
        await registry.close(drain_s=DEADLINE_S)

        assert all(map(gone, pids))


async def test_close_ends_an_engine_that_was_removed_before(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", load=True) as registry:
        stream = await begin(registry.get("a"))
        registry.remove("a")
        await registry.close(drain_s=0.05)
        with pytest.raises(EngineDied):
            await stream.collect()


async def test_close_ends_a_removed_engine_whose_worker_does_not_want_to_end() -> None:
    command = script_worker("ready(); time.sleep(3600)", stop_grace_s=0.3)
    async with registry_of(command, "a", load=True) as registry:
        pid = registry.get("a").worker_pid or 0
        registry.remove("a")
        for _ in range(5):  # the removal has begun to stop the worker
            await asyncio.sleep(0)
        await registry.close(drain_s=0)

        assert gone(pid)


async def test_close_while_loading_leaves_no_process(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker("load_hang")) as registry:
        adding = asyncio.create_task(registry.add(config("a"), load=True))
        await eventually(lambda: bool(registry.list()) and registry.get("a").load_progress > 0)
        await registry.close(drain_s=0)
        await asyncio.wait([adding])

        assert isinstance(adding.exception(), NotFound)


async def test_close_is_idempotent(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a", load=True) as registry:
        await registry.close(drain_s=0)
        await registry.close(drain_s=0)


async def test_closed_registry_takes_no_requests(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(), "a") as registry:
        await registry.close(drain_s=0)
        with pytest.raises(Draining):
            await registry.acquire("a")


async def test_closed_registry_takes_no_engines(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker()) as registry:
        await registry.close(drain_s=0)
        with pytest.raises(Draining):
            await registry.add(config("a"), load=False)


async def test_registry_that_is_draining_takes_no_requests(fake_worker: FakeWorker) -> None:
    async with registry_of(fake_worker(SLOW), "a", load=True) as registry:
        stream = await begin(registry.get("a"), 30)
        closing = asyncio.create_task(registry.close(drain_s=DEADLINE_S))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await registry.acquire("a")
        await stream.collect()
        await closing
