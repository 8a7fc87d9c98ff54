"""Shared fixtures: leak checks after every test, worker commands, model files."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import is_hypothesis_test, settings

from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.parameters import FittedConfig, FittedParameters
from tests.fake_worker import fake_worker_argv
from tests.faults.stallwatch import watched
from tests.settings import with_settings
from tests.tiny_gguf import write_tiny_gguf

settings.register_profile("kolosal", deadline=None, print_blob=True, max_examples=60, stateful_step_count=50)
settings.register_profile(
    "thorough", deadline=None, print_blob=True, max_examples=1000, stateful_step_count=100
)

_LEAK_WAIT_S = 30.0
"""The kernel may take a moment to reap what a test has already ended."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--full-size`: faults as many and as large as the fault suite demands. `--thorough`: many made-up examples."""
    parser.addoption(
        "--full-size", action="store_true", help="fault tests at their full sizes (scripts/fault.py)"
    )
    parser.addoption("--thorough", action="store_true", help="many more examples for each property")


def pytest_configure(config: pytest.Config) -> None:
    """Few examples in each run, many where they are asked for: what failed once is kept in `.hypothesis`."""
    settings.load_profile("thorough" if config.getoption("--thorough") else "kolosal")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Coroutine tests also prove that they leave no task behind. What many examples or a fault run through is not traced.

    Tracing makes their loops some twenty times as slow, and the lines they reach have tests of their own.
    """
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if inspect.iscoroutinefunction(item.function):
            item.add_marker(pytest.mark.usefixtures("no_leaked_tasks"))
        if is_hypothesis_test(item.function) or item.get_closest_marker("fault"):
            item.add_marker(pytest.mark.no_cover)


def pytest_collection_finish() -> None:
    """Thousands of tests are there to the end: the garbage collector need not look at them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Every task a test started is done when it ends."""
    before = asyncio.all_tasks()
    yield
    leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
    if leaked:
        await asyncio.wait(leaked, timeout=_LEAK_WAIT_S)
    leaked = {task for task in leaked if not task.done()}
    assert not leaked, f"tasks left running: {leaked}"


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every process and file descriptor a test opened is gone when it ends, and nothing of ours held an event loop up.

    Of a loop's time a tenth of a second is demanded; a whole one on machines of any speed.
    """
    children_before, files_before = children.known(), _open_files()
    with watched(0.1 if request.config.getoption("--full-size") else 1.0) as stalls:
        yield
    if left := children.since(children_before):
        _, alive = psutil.wait_procs(left, timeout=_LEAK_WAIT_S)
        assert not alive, f"child processes left running: {[child.cmdline() for child in alive]}"
    leaked = _open_files() - files_before
    if leaked:
        gc.collect()  # slow, and only needed where something is in a cycle
        leaked = _open_files() - files_before
    assert not leaked, f"file descriptors left open: {sorted(leaked)}"
    assert not stalls, f"callbacks that took too long: {stalls}"


class _Children:
    """The child processes of this one. Looking for them reads all of /proc, so that is done only where there can be any."""

    _SPAWNING = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.startfile"})
    """Python's own names of what makes a process: https://docs.python.org/3/library/audit_events.html."""

    def __init__(self) -> None:
        self._spawned = False
        self._known: set[psutil.Process] = set()
        sys.addaudithook(self._audit)

    def _audit(self, event: str, _arguments: tuple[object, ...]) -> None:
        if event in self._SPAWNING:  # of this object, as a hook outlives the module
            self._spawned = True

    def known(self) -> set[psutil.Process]:
        """Those there are now. Children of a child that stays are counted too: its workers, for one."""
        if self._spawned or self._known:
            self._spawned = False
            self._known = set(psutil.Process().children(recursive=True))
        return self._known

    def since(self, before: set[psutil.Process]) -> set[psutil.Process]:
        """Those that were not there before, without those that a worker starts when it needs them and keeps for a while."""
        return {child for child in self.known() - before if not _serves(child, before)}


_SERVING = ("templates.jinja", "grammars.check_process")
"""Modules of a worker's own processes: the renderer of chat templates, and what compiles grammars first."""


def _serves(child: psutil.Process, parents: set[psutil.Process]) -> bool:
    try:
        return child.parent() in parents and any(
            module in word for module in _SERVING for word in child.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


children = _Children()


def _open_files() -> set[tuple[str, str]]:
    """File descriptors and what they point to, where the system tells (Linux)."""
    try:
        names = os.listdir("/proc/self/fd")  # noqa: PTH208 - twice a test: pathlib takes ten times as long
    except OSError:
        return set()
    return {(name, target) for name in names if (target := _target(name))}


def _target(name: str) -> str:
    try:
        target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - as above
    except OSError:
        return ""  # the descriptor of the listing itself
    return "" if target.startswith("/proc") else target


@pytest.fixture
def sized(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`sized(20, 1000)`: how many of something, in each run of the tests and in thorough ones or the full fault suite."""
    full = request.config.getoption("--full-size") or request.config.getoption("--thorough")
    return lambda small, large: large if full else small


@pytest.fixture
def seen(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Tells the figure that a fault test saw: `scripts/fault.py` shows it beside the one that is demanded."""
    return lambda figure: record_property("seen", figure)


@pytest.fixture
def fake_worker() -> Callable[..., WorkerCommand]:
    """Makes the command of a worker process with the fake backend: `fake_worker("crash@5", "step_s=0.01", stop_grace_s=1.0)`."""

    def command(*faults: str, **settings: object) -> WorkerCommand:
        settings = {"load_stall_timeout_s": 30.0, "spare_worker": False, **settings}
        return with_settings(WorkerCommand(fake_worker_argv(*faults), _environment()), **settings)

    return command


@pytest.fixture
def real_worker() -> WorkerCommand:
    """The command of a worker process over llama.cpp."""
    return with_settings(WorkerCommand(environment=_environment()), spare_worker=False)


def _environment() -> dict[str, str]:
    """A worker's environment, with what lets coverage see into it."""
    coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    return worker_environment(os.environ) | coverage


@pytest.fixture
def fake_config() -> Callable[..., FittedConfig]:
    """Makes the configuration of an engine for the fake backend: `fake_config("a", n_ctx=64)`."""

    def config(engine_id: str = "fake", **parameters: object) -> FittedConfig:
        return FittedConfig(engine_id, "fake.gguf", FittedParameters(**parameters))  # type: ignore[arg-type]

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
