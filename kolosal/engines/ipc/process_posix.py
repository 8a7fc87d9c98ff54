"""What spawning and ending a worker needs on Linux and macOS. Same functions as `process_windows`."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import TypedDict

_KERNEL_COUNTERS = Path("/proc/vmstat")


class PosixSpawnOptions(TypedDict):
    """Keyword arguments for `asyncio.create_subprocess_exec`."""

    start_new_session: bool


def python_program() -> tuple[str, dict[str, str]]:
    """The Python that workers run in, and variables that it needs besides."""
    return sys.executable, {}


def spawn_options() -> PosixSpawnOptions:
    """A session of its own: Ctrl-C in the daemon's terminal must not end the workers before the daemon drains them."""
    return {"start_new_session": True}


def end_workers_with_this_process() -> None:
    """Nothing to do: a worker asks the kernel to end it with its parent where that is possible, and watches its pipe."""


def describe_exit(returncode: int) -> str:
    """An exit status in words, e.g. `killed by SIGSEGV`."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def memory_kills() -> int | None:
    """How many processes the kernel has ended because memory ran out; None where it does not say (macOS)."""
    try:
        counters = _KERNEL_COUNTERS.read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else None
