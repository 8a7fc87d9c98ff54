"""How a limited process is held to its limits, on Windows. Same names as `limits_posix`."""

from __future__ import annotations

from typing import Final

from kolosal.engines.ipc.process_windows import limit_process

MAX_WALL_S: Final = 2.0
"""How long an answer may take. Processor time is not limited: Windows ends no process for that of one request."""

OUT_OF_TIME: Final = None
"""No exit status means that it used more processor time than it may."""


def limit_this_process(memory_bytes: int) -> None:
    """Nothing to do: `limit_child` does."""


def limit_processor_time(seconds: float) -> float:
    """Nothing to do, see `MAX_WALL_S`."""
    return seconds


def limit_child(pid: int, memory_bytes: int) -> None:
    """Let the process have no more memory than this, and start none."""
    limit_process(pid, memory_bytes)
