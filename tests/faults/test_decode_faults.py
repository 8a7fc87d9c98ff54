"""M3, M4: a KV cache that is full, and a llama_decode that fails: at every step, with every result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kolosal.app import create_app
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from tests.engines.helpers import config, recent_deaths
from tests.engines.worker.helpers import InProcessWorker, RecordingBackend, ask, counting
from tests.fakes import http_client
from tests.settings import settings_of

FakeWorker = Callable[..., WorkerCommand]
Seen = Callable[[str], None]
Sized = Callable[[int, int], int]


# --- M3 ---


@pytest.mark.fault("M3")
async def test_requests_that_do_not_fit_together_all_end_well(fake_worker: FakeWorker, seen: Seen) -> None:
    """Eight at once of 190 tokens each in a cache of 400."""
    registry = EngineRegistry(fake_worker())
    await registry.add(config(n_ctx=200, n_parallel=8, kv_pool_tokens=400), load=True)
    async with http_client(create_app(settings_of(access_log=False), registry)) as client:
        bodies = [
            {"model": "test", "prompt": f"{'x' * 60}{start}:", "max_tokens": 120} for start in range(10, 42)
        ]
        answers = await asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
        too_long = await client.post("/v1/completions", json={"model": "test", "prompt": "x" * 300})
    deaths = recent_deaths(registry.get("test"))
    await registry.close(drain_s=0)

    texts = [answer.json()["choices"][0]["text"] for answer in answers]
    assert texts == [counting(start, 120) for start in range(10, 42)]
    error = too_long.json()["error"]
    assert (too_long.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "301" in error["message"]
    assert "200" in error["message"]
    assert deaths == 0
    seen(f"{len(texts)} of {len(texts)} right; '{error['message']}'")


# --- M4 ---

MOST_STEPS = 200


@dataclass
class Run:
    """Nine requests that share a cache too small for three, with a fault at one step."""

    backend: RecordingBackend
    worker: InProcessWorker

    @classmethod
    def of(cls, *faults: str) -> Run:
        backend = RecordingBackend(*faults, n_ctx=150, n_parallel=3, kv_pool_tokens=280, n_batch=16)
        worker = InProcessWorker(
            backend,
            speculation=False,
            after_step=lambda: worker.loop._cache.check_integrity(backend.cells),
        )
        for start in (5, 60, 700, 8000, 90000, 11, 42, 4711, 3):
            worker.submit(ask("x" * 40 + f"{start}:", max_tokens=90))
        worker.run()
        worker.check_idle()
        return cls(backend, worker)

    @property
    def texts(self) -> dict[int, str]:
        return {request_id: answer.text for request_id, answer in self.worker.answers.items()}

    @property
    def failed(self) -> set[int]:
        return {request_id for request_id, answer in self.worker.answers.items() if answer.error}


@pytest.fixture(scope="module")
def undisturbed() -> Run:
    run = Run.of()
    assert run.backend.steps >= MOST_STEPS
    assert run.failed == set()
    return run


@pytest.mark.fault("M4")
@pytest.mark.parametrize("code", [1, 2, -1, -3])
def test_a_decode_that_fails_at_any_step_costs_its_own_batch_at_most(
    undisturbed: Run, code: int, sized: Sized, seen: Seen
) -> None:
    steps = range(1, MOST_STEPS + 1, sized(23, 1))
    for step in steps:
        run = Run.of(f"decode@{step}={code}")
        lost = set() if code == 1 else run.backend.batches[step - 1]
        kept = {request_id: text for request_id, text in undisturbed.texts.items() if request_id not in lost}

        assert run.failed == lost, f"at step {step}"
        assert run.texts | kept == run.texts, f"at step {step}"
        assert run.backend.closes == [1] * len(run.texts), f"at step {step}"
    what = "no text changed" if code == 1 else "only its batch lost"
    seen(f"{code}: {len(steps)} steps, {what}, books right")
