"""The daemon of a soak: starting and stopping it, and what it and its workers hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import checkout  # noqa: F401 - makes the next ones importable
import psutil
from environment import ROOT
from soak_figures import Sample

from kolosal.native.preflight import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from soak_clients import Tally

MB = 2**20

STOP_S = 60.0
"""How long it may take to end."""

if sys.platform == "win32":
    _NEW_GROUP = subprocess.CREATE_NEW_PROCESS_GROUP
    """Ctrl-Break goes to a whole group, which must not be ours."""
else:
    _NEW_GROUP = 0


@dataclass(frozen=True, slots=True)
class Held:
    """What the daemon holds while nobody asks for anything."""

    files: int
    threads: int
    children: int

    @classmethod
    def by(cls, daemon: psutil.Process) -> Held:
        if sys.platform == "win32":  # a statement, because mypy does not see the condition in an expression
            files = daemon.num_handles()
        else:
            files = daemon.num_fds()
        return cls(files, daemon.num_threads(), len(daemon.children()))


def memory_mb(process: psutil.Process) -> float:
    """What a process has in memory for itself.

    Without pages of mapped files, such as weights, where the system tells of them (Linux): it takes them away and gives
    them back as it likes.
    """
    held = process.memory_info()
    return float(held.rss - getattr(held, "shared", 0)) / MB


@dataclass
class Memory:
    """Memory over time, in MB: of the daemon, and of each worker by its process id."""

    daemon: list[Sample] = field(default_factory=list)
    workers: dict[int, list[Sample]] = field(default_factory=lambda: defaultdict(list))

    async def watch(self, daemon: psutil.Process, tally: Tally, every_s: float, until: asyncio.Event) -> None:
        """Look every so often."""
        while not until.is_set():
            at_s = time.monotonic() - tally.began_at
            self.daemon.append(Sample(at_s, memory_mb(daemon)))
            for worker in daemon.children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    self.workers[worker.pid].append(Sample(at_s, memory_mb(worker)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await until.wait()


@contextlib.contextmanager
def running_daemon(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A daemon of a user who has configured nothing, and its address.

    Raises:
        SetupError: it does not start; with the end of its log.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KOLOSAL_")}
    homes = ("HOME", "APPDATA", "LOCALAPPDATA", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    path = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    environment |= dict.fromkeys(homes, str(folder)) | {"PYTHONPATH": path, "PYTHONUTF8": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kolosal", "serve", "--port", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=folder, creationflags=_NEW_GROUP,
        )  # fmt: skip
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            line = process.stdout.readline().decode()
            if "listening on" not in line:
                raise SetupError(f"the daemon did not start:\n{line}{last_words(folder)}")
            yield process, line.split()[-1]
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def last_words(folder: Path) -> str:
    """The end of the daemon's log."""
    return (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]


def stopped(process: subprocess.Popen[bytes]) -> int:
    """Ask the daemon to end, as a service manager does; its exit status."""
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.send_signal(signal.SIGTERM)
    return process.wait(STOP_S)
