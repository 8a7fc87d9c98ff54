"""Shared fixtures: leak checks after every test, worker commands, model files."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from kolosal.engines.ipc.process import WorkerCommand, worker_environment
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from tests.fake_worker import fake_worker_argv
from tests.faults.stallwatch import watched
from tests.settings import with_settings
from tests.tiny_gguf import write_tiny_gguf

settings.register_profile("kolosal", deadline=None, print_blob=True)
settings.load_profile("kolosal")

_LEAK_WAIT_S = 5.0
"""The kernel may take a moment to reap what a test has already ended."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full-size`: faults as many and as large as the fault suite demands."""
    parser.addoption(
        "--full-size", action="store_true", help="fault tests at their full sizes (scripts/fault.py)"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coroutine tests also prove that they leave no task behind."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.add_marker(pytest.mark.usefixtures("no_leaked_tasks"))


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Every task a test started is done when it ends."""
    before = asyncio.all_tasks()
    yield
    leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
    if leaked:
        await asyncio.wait(leaked, timeout=0.5)
    leaked = {task for task in leaked if not task.done()}
    assert not leaked, f"tasks left running: {leaked}"


@pytest.fixture(autouse=True)
def no_leaked_processes_or_files() -> Iterator[None]:
    """Every child process and every file descriptor a test opened is gone when it ends."""
    process = psutil.Process()
    children_before, files_before = _children(process), _open_files()
    yield
    left = _children(process) - children_before
    if left:
        _, alive = psutil.wait_procs(left, timeout=_LEAK_WAIT_S)
        assert not alive, f"child processes left running: {[child.cmdline() for child in alive]}"
    leaked = _open_files() - files_before
    if leaked:
        gc.collect()  # slow, and only needed where something is in a cycle
        leaked = _open_files() - files_before
    assert not leaked, f"file descriptors left open: {sorted(leaked)}"


@pytest.fixture(autouse=True)
def no_stalled_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing of the daemon's own holds an event loop up: a tenth of a second is demanded, three on machines of any speed."""
    with watched(0.1 if request.config.getoption("--full-size") else 0.3) as stalls:
        yield
    assert not stalls, f"callbacks that took too long: {stalls}"


def _children(process: psutil.Process) -> set[psutil.Process]:
    return set(process.children(recursive=True))


def _open_files() -> set[tuple[str, str]]:
    """File descriptors and what they point to, where the system tells (Linux)."""
    directory = Path("/proc/self/fd")
    if not directory.exists():
        return set()
    return {(link.name, target) for link in directory.iterdir() if (target := _target(link))}


def _target(link: Path) -> str:
    try:
        target = str(link.readlink())
    except OSError:
        return ""  # the descriptor of the listing itself
    return "" if target.startswith("/proc") else target


@pytest.fixture
def sized(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`sized(20, 1000)`: how many of something, in each run of the tests and in the full fault suite."""
    full: bool = request.config.getoption("--full-size")
    return lambda small, large: large if full else small


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tells the figure that a fault test saw: `scripts/fault.py` shows it beside the one that is demanded."""
    return lambda figure: record_property("seen", figure)


@pytest.fixture
def fake_worker() -> Callable[..., WorkerCommand]:
    """Makes the command of a worker process with the fake backend: `fake_worker("crash@5", "step_s=0.01", stop_grace_s=1.0)`."""

    def command(*faults: str, **settings: object) -> WorkerCommand:
        settings = {"load_stall_timeout_s": 30.0, **settings}
        return with_settings(WorkerCommand(fake_worker_argv(*faults), _environment()), **settings)

    return command


@pytest.fixture
def real_worker() -> WorkerCommand:
    """The command of a worker process over llama.cpp."""
    return WorkerCommand(environment=_environment())


def _environment() -> dict[str, str]:
    """A worker's environment, with what lets coverage see into it."""
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    return worker_environment(os.environ) | coverage


@pytest.fixture
def fake_config() -> Callable[..., EngineConfig]:
    """Makes the configuration of an engine for the fake backend: `fake_config("a", n_ctx=64)`."""

    def config(engine_id: str = "fake", **parameters: object) -> EngineConfig:
        return EngineConfig(engine_id, "fake.gguf", LoadingParameters(**parameters))  # type: ignore[arg-type]

    return config


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few hundred kilobytes with random weights in f32: every path of llama.cpp, no sense."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model file that `scripts/test.py` provides."""
    path = os.environ.get("KOLOSAL_TEST_MODEL")
    if path is None:
        pytest.fail(
            "KOLOSAL_TEST_MODEL is not set: run the tests with scripts/test.py, or set it to the model file"
        )
    return Path(path)
