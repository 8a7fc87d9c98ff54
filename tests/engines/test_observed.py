"""What engines with real worker processes tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kolosal.engines.ipc.calls import Tokenize
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from kolosal.errors import EngineDied, LoadFailed
from kolosal.observe.counts import Outcome
from tests.engines.helpers import DEADLINE_S, config, eventually, loaded, script_worker
from tests.engines.worker.helpers import ask

FakeWorker = Callable[..., WorkerCommand]


async def test_a_generation_and_a_call_are_counted(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        await engine.generate(ask("5:", max_tokens=8)).collect()
        await engine.call(Tokenize("abc"))

        counts = engine.observer.total
        assert (counts.prompt_tokens, counts.output_tokens, counts.outcomes) == (3, 8, {Outcome.COMPLETED: 1})
        assert counts.unary_calls == {("tokenize", Outcome.COMPLETED): 1}
        assert counts.ttft.count == counts.duration.count == 1
        assert engine.kv_cells is not None
        assert engine.kv_cells > 0


async def test_states_are_told_in_order(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker()) as engine:
        pass

    told = [e.data["state"] for e in engine.observer.events.ring.last(100).items if e.kind == "engine.state"]
    assert told == ["unloaded", "loading", "ready", "closed"]


async def test_a_death_is_told_with_its_reason_and_fails_the_stream(fake_worker: FakeWorker) -> None:
    async with loaded(fake_worker("crash@5", "step_s=0.005")) as engine:
        with pytest.raises(EngineDied):
            await asyncio.wait_for(engine.generate(ask("5:", max_tokens=100)).collect(), DEADLINE_S)

        events = [*engine.observer.events.ring.last(100).items]
        states = [e.data for e in events if e.kind == "engine.state" and e.data.get("before") == "ready"]
        assert len(states) == 2  # the first crash was a pause
        assert all("The worker stopped" in str(state["reason"]) for state in states)
        assert engine.observer.total.errors == {"engine_died": 1}
        assert (engine.observer.total.deaths, engine.kv_cells) == (2, None)


async def test_a_worker_s_stderr_is_kept_also_of_a_load_that_failed() -> None:
    command = script_worker("os.write(2, b'no such tensor\\nlast words'); sys.exit(3)")
    with pytest.raises(LoadFailed):
        async with loaded(command, config("a")) as engine:
            pass
    async with asyncio.timeout(DEADLINE_S):
        async with loaded(script_worker("ready(); os.write(2, b'one\\ntwo\\n'); until_the_end()")) as engine:
            await eventually(lambda: engine.logs.ring.newest == 2)
            assert engine.logs.ring.last(9).items == ("one", "two")


async def test_a_replaced_engine_tells_no_more_of_its_state(fake_worker: FakeWorker) -> None:
    registry = EngineRegistry(fake_worker())
    try:
        old = await registry.add(config("a"), load=True)
        await registry.replace(config("a"), load=True)
        await eventually(lambda: old.worker_pid is None)

        kinds = [(e.kind, e.data.get("state")) for e in registry.observer.events.ring.last(100).items]
        told = [kind for kind in kinds if kind[0] != "engine.progress"]
        states = ["unloaded", "loading", "ready"] * 2
        assert told == [("engine.state", state) for state in states]
        assert registry.observer.engines["a"].loads == 2
    finally:
        await registry.close(drain_s=0)


async def test_an_engine_that_is_not_replaced_after_all_is_told_again(fake_worker: FakeWorker) -> None:
    registry = EngineRegistry(script_worker("ready(); until_the_end()"))
    try:
        await registry.add(config("a"), load=True)
        registry._command = script_worker("sys.exit(3)")
        with pytest.raises(LoadFailed):
            await registry.replace(config("a"), load=True)

        states = [e.data for e in registry.observer.events.ring.last(100).items if e.kind == "engine.state"]
        assert states[-1] == {"engine_id": "a", "state": "ready"}
        assert registry.observer.engines["a"].loads == 1
    finally:
        await registry.close(drain_s=0)
