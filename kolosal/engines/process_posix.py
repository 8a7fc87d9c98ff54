"""What spawning and ending a worker needs on Linux and macOS. Same functions as `process_windows`."""

from __future__ import annotations

import signal
from typing import TypedDict


class SpawnOptions(TypedDict):
    """Keyword arguments for `asyncio.create_subprocess_exec`."""

    start_new_session: bool


def spawn_options() -> SpawnOptions:
    """A session of its own: Ctrl-C in the daemon's terminal must not end the workers before the daemon drains them."""
    return {"start_new_session": True}


def describe_exit(returncode: int) -> str:
    """An exit status in words, e.g. `killed by SIGSEGV`."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
