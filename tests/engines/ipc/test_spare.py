from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.spare import SpareWorker
from kolosal.engines.ipc.workers import OnThisMachine, Worker, WorkerEvents
from kolosal.engines.parameters import Replicas
from kolosal.errors import LoadFailed
from tests.engines.helpers import DEADLINE_S, config, eventually

FakeWorker = Callable[..., WorkerCommand]

IGNORED = WorkerEvents(
    progress=lambda _: None,
    frame=lambda _: None,
    exit=lambda _: None,
    stderr=lambda _: None,
    moved=lambda _ids, _why: None,
)


class Machine:
    """Workers on this machine, with a spare that is there at once."""

    def __init__(self, spare: SpareWorker) -> None:
        self.spare = spare
        self._launcher = OnThisMachine(spare)
        self._workers: list[Worker] = []

    async def launch(self, command: WorkerCommand, model_path: str = "fake.gguf") -> Worker:
        wanted = replace(config(), model_path=model_path)
        worker, _ = await self._launcher.launch(command, wanted, Replicas, IGNORED)
        self._workers.append(worker)
        return worker

    async def spare_pid(self) -> int:
        """Of the spare, once there is one."""
        await eventually(lambda: self.spare.pid is not None)
        assert self.spare.pid is not None
        return self.spare.pid

    async def close(self) -> None:
        for worker in self._workers:
            await worker.stop()
        await self._launcher.close()


@asynccontextmanager
async def machine(*, linger_s: float = DEADLINE_S) -> AsyncIterator[Machine]:
    one = Machine(SpareWorker(start_after_s=0, linger_s=linger_s))
    try:
        yield one
    finally:
        await one.close()


async def test_there_is_no_spare_before_anything_was_loaded() -> None:
    async with machine() as one:
        assert one.spare.pid is None


async def test_next_model_is_loaded_by_the_spare(fake_worker: FakeWorker) -> None:
    async with machine() as one:
        await one.launch(fake_worker())
        spare = await one.spare_pid()

        assert (await one.launch(fake_worker())).pid == spare
        assert await one.spare_pid() != spare  # the one after that


async def test_spare_that_died_is_not_used(fake_worker: FakeWorker) -> None:
    async with machine() as one:
        await one.launch(fake_worker())
        spare = await one.spare_pid()
        psutil.Process(spare).send_signal(signal.SIGTERM)
        await eventually(lambda: one.spare.pid is None)

        assert (await one.launch(fake_worker())).pid != spare


async def test_spare_of_another_environment_is_not_used(fake_worker: FakeWorker) -> None:
    command = fake_worker()
    other = replace(command, environment={**command.environment, "LANG": "C"})
    async with machine() as one:
        await one.launch(command)
        spare = await one.spare_pid()

        assert (await one.launch(other)).pid != spare
        await eventually(lambda: not psutil.pid_exists(spare))
        assert await one.spare_pid()


async def test_failed_load_takes_the_spare_and_leaves_another(
    real_worker: WorkerCommand, tiny_gguf: Path
) -> None:
    async with machine() as one:
        await one.launch(real_worker, str(tiny_gguf))
        spare = await one.spare_pid()
        with pytest.raises(LoadFailed, match="No such file"):
            await one.launch(real_worker, "no-such.gguf")

        assert await one.spare_pid() != spare
        assert not psutil.pid_exists(spare)


async def test_spare_ends_with_the_last_worker(fake_worker: FakeWorker) -> None:
    async with machine(linger_s=0) as one:
        worker = await one.launch(fake_worker())
        spare = await one.spare_pid()
        await worker.stop()

        await eventually(lambda: not psutil.pid_exists(spare))


async def test_spare_stays_for_a_model_that_takes_the_place_of_another(fake_worker: FakeWorker) -> None:
    async with machine() as one:
        worker = await one.launch(fake_worker())
        spare = await one.spare_pid()
        await worker.stop()

        assert (await one.launch(fake_worker())).pid == spare


async def test_program_that_cannot_be_started_is_no_error_of_the_spare(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spare = SpareWorker(start_after_s=0)
    spare.keep(("/does/not/exist",), {})
    await eventually(lambda: "worker.no_spare" in caplog.text)

    assert spare.pid is None
    await spare.close()


def test_worker_that_hears_nothing_ends_with_the_daemon() -> None:
    worker = [sys.executable, "-m", "kolosal.engines.worker"]
    done = subprocess.run(worker, input=b"", capture_output=True, timeout=DEADLINE_S, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
