"""M1, M2, G3: memory that is not there, and a model file that changes under an engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kolosal.app import create_app
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.memory_words import say_out_of_memory
from kolosal.engines.memory.machine import read_memory
from kolosal.engines.memory.sizing import FileSizes
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from tests.engines.helpers import config, in_turn, loaded, starts
from tests.engines.worker.helpers import ask, counting
from tests.fakes import http_client
from tests.faults.drivers import killed_while_answering
from tests.settings import settings_of

FakeWorker = Callable[..., WorkerCommand]
Seen = Callable[[str], None]

posix = pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX")

MIB = 2**20


# --- M1 ---


def limited(command: WorkerCommand, n_bytes: int) -> WorkerCommand:
    """The same worker with no more address space than this."""
    body = f"""
import os, resource
resource.setrlimit(resource.RLIMIT_AS, ({n_bytes}, {n_bytes}))
argv = {list(command.argv)!r}
os.execv(argv[0], argv)
"""
    return replace(command, argv=(sys.executable, "-I", "-S", "-c", body))


@pytest.mark.fault("M1")
@posix
async def test_a_load_without_memory_is_typed_and_tried_once_more(
    tmp_path: Path, real_worker: WorkerCommand, tiny_gguf: Path, seen: Seen
) -> None:
    """One engine is idle. The next one has 700 MiB of address space for half a gigabyte of keys and values, which were asked for
    in so many words."""
    environment = {**real_worker.environment, "OPENBLAS_NUM_THREADS": "1"}
    worker = replace(real_worker, environment=environment)
    command = in_turn(tmp_path, worker, limited(worker, 700 * MIB))
    registry = EngineRegistry(command)
    small = LoadingParameters(n_ctx=64, n_parallel=1, n_threads=1)
    large = replace(small, n_ctx=1_000_000, kv_pool_tokens=1_000_000, cache_type_k="f32", cache_type_v="f32")
    await registry.add(EngineConfig("idle", str(tiny_gguf), small), load=True)
    engine = await registry.add(EngineConfig("large", str(tiny_gguf), large), load=False)
    async with http_client(create_app(settings_of(access_log=False), registry)) as client:
        refused = await client.post("/v1/completions", json={"model": "large", "prompt": "x"})
        health = await client.get("/health")
    states = {one.engine_id: one.state for one in registry.list()}
    held = registry.load_scheduler.estimate_of(engine)
    await registry.close(drain_s=0)

    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "insufficient_memory"), error
    assert error["message"].startswith("There was not enough memory for engine 'large'")
    assert "context of 1000000 tokens" in error["message"]  # not less than was asked for
    assert int(refused.headers["retry-after"]) > 0
    assert starts(tmp_path) == 3
    assert states == {"idle": EngineState.UNLOADED, "large": EngineState.UNLOADED}
    assert (held, health.status_code) == (None, 200)
    seen(f"503 {error['code']} after 2 tries, the idle engine unloaded between them")


@pytest.mark.fault("M1")
@pytest.mark.parametrize(
    "reason",
    [
        "No room for a context of 4096 tokens: failed to allocate buffer for kv cache",
        "The worker stopped: killed by SIGABRT (its last words: ggml.c:1644: GGML_ASSERT(ctx->mem_buffer != NULL) failed)",
        "The worker stopped: killed by SIGABRT (its last words: terminate called after throwing an instance of 'std::bad_alloc')",
        "CUDA error: out of memory",
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB on device 0: cudaMalloc failed: out of memory",
        "llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers",
        "MemoryError: ",
    ],
)
def test_these_words_say_that_memory_was_short(reason: str) -> None:
    assert say_out_of_memory(reason)


# --- M2 ---

GREEDY = """
import sys
from kolosal.engines.worker.__main__ import main
from tests.fake_worker.backend import FakeBackend, Faults
compute, held = FakeBackend.decode, []
def greedy(self, chunks):
    if self.steps >= 5:
        held.append(b"x" * (64 << 20))
    compute(self, chunks)
FakeBackend.decode = greedy
sys.exit(main(lambda *loaded: lambda: FakeBackend(*loaded, Faults(step_s=0.01))))
"""

GROUP_LIMIT = 256 * MIB

GROUP_VARIABLE = "KOLOSAL_TEST_CGROUP"

LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Of the second and of the first version of control groups."""


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why workers ended, as the log says."""
    return [record.__dict__["reason"] for record in caplog.records if record.msg == "engine.died"]


@contextlib.contextmanager
def memory_group() -> Iterator[Path]:
    """A control group with a limit, below the one that was given to the tests; skips where that cannot be.

    Nobody's other groups are touched: that of whoever started the tests is not ours to change.
    """
    given = os.environ.get(GROUP_VARIABLE)
    if given is None:
        pytest.skip(f"{GROUP_VARIABLE} names no control group whose memory the tests may limit")
    group = Path(given) / f"kolosal-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        limits = [group / name for name in LIMITS if (group / name).exists()]
        if not limits:
            pytest.skip(f"no {' or '.join(LIMITS)} in a group below {given}: it does not limit memory")
        for limit in limits:
            limit.write_text(str(GROUP_LIMIT))
        if not enforced(group):
            pytest.skip(f"a process of twice the limit lives on in a group below {given}")
        yield group
    finally:
        remove(group)


def entering(group: Path, argv: tuple[str, ...]) -> tuple[str, ...]:
    """The same program, in a group from its first instruction on."""
    body = f"""
import os
with open({str(group / "cgroup.procs")!r}, "w") as procs:
    procs.write(str(os.getpid()))
argv = {list(argv)!r}
os.execv(argv[0], argv)
"""
    return (sys.executable, "-I", "-S", "-c", body)


def enforced(group: Path) -> bool:
    """Whether the limit ends a process that takes more; some systems take a limit and do nothing."""
    argv = entering(group, (sys.executable, "-I", "-S", "-c", f"x = b'x' * {2 * GROUP_LIMIT}"))
    return subprocess.run(argv, capture_output=True).returncode == -signal.SIGKILL


def remove(group: Path) -> None:
    """A group can be removed once its last process is gone."""
    for _ in range(500):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.01)
    raise AssertionError(f"{group} cannot be removed")


@pytest.mark.fault("M2")
@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
async def test_a_worker_that_the_kernel_ends_for_its_memory_is_a_pause(
    tmp_path: Path, fake_worker: FakeWorker, caplog: pytest.LogCaptureFixture, seen: Seen
) -> None:
    with memory_group() as group:
        greedy = WorkerCommand(entering(group, (sys.executable, "-c", GREEDY)), fake_worker().environment)
        async with loaded(in_turn(tmp_path, greedy, fake_worker()), config(n_parallel=4)) as engine:
            streams = [engine.generate(ask(f"{start}:", max_tokens=30)) for start in range(8)]
            texts = [(await stream.collect()).text for stream in streams]

    assert texts == [counting(start, 30) for start in range(8)]
    assert starts(tmp_path) == 2
    reason = "The worker stopped: killed by SIGKILL, because the machine was out of memory"
    assert reasons(caplog) == [reason]
    seen(f"8 of 8 streams go on; '{reason}'")


@pytest.mark.fault("M2")
@pytest.mark.parametrize(
    ("counted", "told"),
    [
        (True, "because the machine was out of memory"),
        (False, "possibly because the system ran out of memory"),
    ],
)
@posix
async def test_a_worker_that_the_system_kills_is_a_pause(
    tmp_path: Path,
    fake_worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    counted: bool,
    told: str,
    seen: Seen,
) -> None:
    """The kernel counts whom it ends. What systemd-oomd and the supervisors of containers end, no counter tells of."""
    counters = tmp_path / "vmstat"
    counters.write_text("oom_kill 3\n")
    monkeypatch.setattr("kolosal.engines.ipc.process_posix._KERNEL_COUNTERS", counters)
    command = in_turn(tmp_path, fake_worker("step_s=0.005"), fake_worker())
    async with loaded(command, config(n_parallel=4)) as engine:
        counters.write_text(f"oom_kill {3 + counted}\n")
        ends = await killed_while_answering(
            engine, [ask(f"{start}:", max_tokens=30) for start in range(8)], how=signal.SIGKILL
        )

    assert [getattr(end, "text", end) for end in ends] == [counting(start, 30) for start in range(8)]
    assert reasons(caplog) == [f"The worker stopped: killed by SIGKILL, {told}"]
    seen(f"8 of 8 streams go on: '{told}'")


# --- G3 ---


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(b"this is no model " * 1000)
    other.replace(path)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.fault("G3")
@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be changed there")
@pytest.mark.parametrize("change", [cut, cut_to_nothing, replaced, overwritten, deleted])
async def test_a_model_file_that_changes_costs_its_worker_at_most(
    tmp_path: Path,
    real_worker: WorkerCommand,
    tiny_gguf: Path,
    change: Callable[[Path], None],
    seen: Seen,
) -> None:
    """The weights are mapped: where the file is cut, the worker gets SIGBUS. The next load says what is wrong, and one of the
    right file serves again."""
    path = tmp_path / "model.gguf"
    shutil.copy(tiny_gguf, path)
    command = replace(real_worker, restart_delays_s=(0.0,))
    registry = EngineRegistry(command, sizes=FileSizes(read_memory))
    parameters = LoadingParameters(n_ctx=64, n_parallel=1, n_threads=1, use_mmap=True)
    await registry.add(EngineConfig("a", str(path), parameters), load=True)
    body = {"model": "a", "prompt": "Hello", "max_tokens": 4, "ignore_eos": True, "temperature": 0}
    async with http_client(create_app(settings_of(access_log=False), registry)) as client:
        change(path)
        with_old = await client.post("/v1/completions", json=body)
        await registry.unload("a", limit_s=5)
        again = await client.post("/v1/completions", json=body)
        shutil.copy(tiny_gguf, path)
        repaired = await client.post("/engines/a/load", json={})
        answered = await client.post("/v1/completions", json=body)
        health = await client.get("/health")
    await registry.close(drain_s=0)

    assert with_old.status_code in (200, 503)
    assert again.status_code in (422, 503)  # the latter where the worker has died of it, too often
    told = again.json()["error"]["message"]
    assert "model file" in told, told
    assert (repaired.status_code, answered.status_code, health.status_code) == (200, 200, 200)
    seen(f"{change.__name__}: {with_old.status_code}, then {again.status_code}")
