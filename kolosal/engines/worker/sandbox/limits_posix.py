"""How a limited process is held to its limits, on Linux and macOS. Same names as `limits_windows`."""

from __future__ import annotations

import contextlib
import resource
import signal
from typing import Final

MAX_WALL_S: Final = 10.0
"""How long an answer may take when its processor time, which is limited too, is not what it takes: the machine pages."""

OUT_OF_TIME: Final = -signal.SIGPROF
"""Exit status of a process that used more processor time than it may."""


def limit_this_process(memory_bytes: int) -> None:
    """Take no more memory than this, open nothing, write no file, start nothing. For good; called once all is imported.

    macOS knows `RLIMIT_AS` and does not keep to it.
    """
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))


def limit_processor_time(seconds: float) -> float:
    """End this process once it has used so much; 0: whatever it uses. Returns what was left of the limit before.

    The signal's default is to end the process, which needs no Python: it works in the middle of `10 ** 10 ** 8`.
    """
    return signal.setitimer(signal.ITIMER_PROF, seconds)[0]


def limit_child(pid: int, memory_bytes: int) -> None:
    """Nothing to do: it limits itself."""
