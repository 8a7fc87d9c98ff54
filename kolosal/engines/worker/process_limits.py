"""What a worker gives up before it reads a model file: dumps of its memory, new rights, and a life after the daemon's.

Done by the worker itself, because code between fork and exec of a process with threads may hang it. What a system does not
have is left out. The numbers are those of prctl(2).
"""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


def limit_this_process() -> None:
    """Give it all up. For good: children inherit it."""
    if sys.platform == "win32":
        return  # the daemon's job object sees to it
    import resource  # noqa: PLC0415 - not on Windows

    # a dump would hold prompts
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
        if not _cuda_needs_help():
            # a setuid program that a broken parser is made to start gets no more rights than the worker
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # the end of the pipe says it too, but only once somebody reads there
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _cuda_needs_help() -> bool:
    """Whether CUDA's first use since the machine started must make its devices, which it does by a setuid program."""
    return Path("/proc/driver/nvidia").exists() and not Path("/dev/nvidia-uvm").exists()
