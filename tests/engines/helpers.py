"""What the engine tests share: requests, worker processes in one line of Python, and waiting with a bound."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import EngineInfo, FromWorker, Ready, encode
from kolosal.engines.ipc.process import WorkerProcess
from kolosal.engines.parameters import EngineConfig, FittedConfig, FittedParameters
from tests.settings import with_settings

DEADLINE_S = 30.0
"""Longest wait for what must happen soon: generous, because other work shares the machine."""

INFO = EngineInfo(
    description="script", architecture="script", n_params=0, size_bytes=0, n_vocab=1, n_ctx_train=64, n_ctx=64,
    kv_pool_tokens=256, n_parallel=4, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1, n_gpu_layers=0,
    flash_attn="auto", chat_template="chatml", prompt_cache="prefix",
)  # fmt: skip

_PRELUDE = """
import os, signal, sys, time
def say(data):
    while data:
        data = data[os.write(1, data):]
def hear():
    return sys.stdin.buffer.readline()
def ready():
    hear()
    say(sys.argv[1].encode())
def until_the_end():
    while (line := hear()) and b"shutdown" not in line:
        pass
"""


def config(engine_id: str = "test", **parameters: Any) -> FittedConfig:
    return FittedConfig(engine_id, "fake.gguf", FittedParameters(**parameters))


def script_worker(
    body: str,
    *,
    environment: dict[str, str] | None = None,
    **settings: object,
) -> WorkerCommand:
    """A worker that does what the script says: `ready()`, then perhaps `say(b"...")`."""
    script = _PRELUDE + textwrap.dedent(body)
    argv = (sys.executable, "-I", "-S", "-c", script, encode(Ready(INFO)).decode())
    return with_settings(WorkerCommand(argv, environment or {}), **settings)


def in_turn(folder: Path, *commands: WorkerCommand) -> WorkerCommand:
    """The first worker is started by the first command, the next by the next, and all later ones by the last.

    `starts(folder)` tells how many there were.
    """
    argvs = [list(command.argv) for command in commands]
    body = f"""
import os, subprocess, sys
with open({str(folder / "starts")!r}, "a+") as log:
    log.write("x")
    log.seek(0)
    turn = len(log.read())
argvs = {argvs!r}
argv = argvs[min(turn, len(argvs)) - 1]
if sys.platform == "win32":  # there execv is a new process, and nobody waits for it
    sys.exit(subprocess.call(argv))
os.execv(argv[0], argv)
"""
    return replace(commands[-1], argv=(sys.executable, "-I", "-S", "-c", body))


def starts(folder: Path) -> int:
    """How many workers a command of `in_turn` has started."""
    log = folder / "starts"
    return len(log.read_text()) if log.exists() else 0


class Launched:
    """A worker process and all it said."""

    worker: WorkerProcess
    info: EngineInfo

    def __init__(self) -> None:
        self.progress: list[float] = []
        self.frames: list[FromWorker] = []
        self.exits: list[str] = []
        self.said_something = asyncio.Event()
        self.made_progress = asyncio.Event()
        self._exited = asyncio.Event()

    async def start(self, command: WorkerCommand, engine: FittedConfig | None = None) -> None:
        self.worker, self.info = await WorkerProcess.launch(
            command,
            engine or config(),
            on_progress=self._on_progress,
            on_frame=self._on_frame,
            on_exit=self._on_exit,
            on_stderr=lambda _chunk: None,
        )

    async def exit_reason(self) -> str:
        await asyncio.wait_for(self._exited.wait(), DEADLINE_S)
        return self.exits[0]

    @property
    def returncode(self) -> int | None:
        return self.worker._process.returncode

    def _on_progress(self, fraction: float) -> None:
        self.progress.append(fraction)
        self.made_progress.set()

    def _on_frame(self, frame: FromWorker) -> None:
        self.frames.append(frame)
        self.said_something.set()

    def _on_exit(self, reason: str) -> None:
        self.exits.append(reason)
        self._exited.set()


@asynccontextmanager
async def launched(command: WorkerCommand, engine: FittedConfig | None = None) -> AsyncIterator[Launched]:
    """A running worker, stopped at the end."""
    one = Launched()
    await one.start(command, engine)
    try:
        yield one
    finally:
        await one.worker.stop()


@asynccontextmanager
async def loaded(
    command: WorkerCommand, engine: EngineConfig | None = None, *, max_queued: int = 64
) -> AsyncIterator[Engine]:
    """A loaded engine, closed at the end."""
    one = Engine(engine or config(), with_settings(command, max_queued=max_queued))
    try:
        await one.ensure_ready()
        yield one
    finally:
        await one.close()


def process_of(engine: Engine) -> WorkerProcess:
    """The worker of an engine on this machine."""
    assert isinstance(engine._worker, WorkerProcess)
    return engine._worker


def recent_deaths(engine: Engine) -> int:
    """How often its worker died, or did not get ready, within the window of its breaker."""
    return engine.breaker.deaths(time.monotonic())


async def eventually(condition: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that waits to be reaped has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(pid: int, within_s: float) -> bool:
    """The same outside of an event loop, with a bound."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if gone(pid):
            return True
        time.sleep(0.01)
    return False
