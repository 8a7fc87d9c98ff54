"""What spawning and ending a worker needs on Windows. Same functions as `process_posix`."""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import TypedDict

log = logging.getLogger(__name__)

_CREATE_NEW_PROCESS_GROUP = 0x0000_0200  # winbase.h; subprocess has the name on Windows only
_CREATE_NO_WINDOW = 0x0800_0000

# ntstatus.h: what a crash looks like as an exit status.
_STATUS_NAMES = {
    0xC000_0005: "access violation",
    0xC000_001D: "illegal instruction: this build needs a newer CPU",
    0xC000_0017: "out of memory",
    0xC000_00FD: "stack overflow",
    0xC000_0135: "a DLL was not found",
    0xC000_0409: "aborted",
}


class WindowsSpawnOptions(TypedDict):
    """Keyword arguments for `asyncio.create_subprocess_exec`."""

    creationflags: int


def python_program(
    executable: str = sys.executable, base: str = getattr(sys, "_base_executable", sys.executable)
) -> tuple[str, dict[str, str]]:
    """The Python that workers run in, and variables that it needs besides.

    In a virtual environment `executable` only starts `base`, from which the environment was made, and waits for it: the
    process that we know would not be the one that holds the model. So `base` is started at once, and told whom it is for.
    """
    if base.casefold() == executable.casefold():
        return executable, {}
    return base, {"__PYVENV_LAUNCHER__": executable}


def spawn_options() -> WindowsSpawnOptions:
    """A process group of its own and no console window: Ctrl-C must not end the workers before the daemon does."""
    return {"creationflags": _CREATE_NEW_PROCESS_GROUP | _CREATE_NO_WINDOW}


# jobapi2.h and winnt.h: jobs. One whose processes end with its last handle, which we keep until we end ourselves.
_EXTENDED_LIMIT_INFORMATION = 9
_LIMIT_ACTIVE_PROCESS = 0x0000_0008
_LIMIT_PROCESS_MEMORY = 0x0000_0100
_LIMIT_DIE_ON_UNHANDLED_EXCEPTION = 0x0000_0400  # no box that asks the user what to do about a crash
_LIMIT_KILL_ON_JOB_CLOSE = 0x0000_2000
_MAY_BE_LIMITED = 0x0101  # PROCESS_SET_QUOTA and PROCESS_TERMINATE, which putting it into a job needs


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("per_process_user_time_limit", ctypes.c_int64),
        ("per_job_user_time_limit", ctypes.c_int64),
        ("limit_flags", ctypes.c_uint32),
        ("minimum_working_set_size", ctypes.c_size_t),
        ("maximum_working_set_size", ctypes.c_size_t),
        ("active_process_limit", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory_limit", ctypes.c_size_t),
        ("job_memory_limit", ctypes.c_size_t),
        ("peak_process_memory_used", ctypes.c_size_t),
        ("peak_job_memory_used", ctypes.c_size_t),
    )


def end_workers_with_this_process() -> None:
    """Put this process into a job that ends with it: workers, which are born into the job, end however we do.

    A system that refuses leaves the workers to notice the end of their pipes.
    """
    limits = _ExtendedLimits()
    limits.basic.limit_flags = _LIMIT_KILL_ON_JOB_CLOSE | _LIMIT_DIE_ON_UNHANDLED_EXCEPTION
    _put_into_job(None, limits)  # the handle is never closed: that is what ends the job


def limit_process(pid: int, memory_bytes: int) -> None:
    """Put a child of this process into a job in which it gets no more memory than this, and cannot start processes."""
    limits = _ExtendedLimits()
    limits.basic.limit_flags = (
        _LIMIT_PROCESS_MEMORY | _LIMIT_ACTIVE_PROCESS | _LIMIT_DIE_ON_UNHANDLED_EXCEPTION
    )
    limits.basic.active_process_limit = 1
    limits.process_memory_limit = memory_bytes
    _put_into_job(pid, limits)


def _put_into_job(pid: int | None, limits: _ExtendedLimits) -> None:
    """Make a job, and this process or another part of it."""
    if sys.platform != "win32":
        return
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.SetInformationJobObject.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_uint32,
    )
    kernel.AssignProcessToJobObject.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    kernel.CloseHandle.argtypes = (ctypes.c_void_p,)
    process = kernel.GetCurrentProcess() if pid is None else kernel.OpenProcess(_MAY_BE_LIMITED, False, pid)
    job = kernel.CreateJobObjectW(None, None)
    done = (
        job
        and kernel.SetInformationJobObject(
            job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
        )
        and kernel.AssignProcessToJobObject(job, process)
    )
    if not done:
        log.warning("workers.no_job", extra={"error": ctypes.get_last_error()})
    if pid is not None:  # a job lasts as long as its processes
        kernel.CloseHandle(process)
        kernel.CloseHandle(job)


def describe_exit(returncode: int) -> str:
    """An exit status in words, e.g. `access violation (0xC0000005)`."""
    status = returncode & 0xFFFF_FFFF
    if status < 0x8000_0000:
        return f"exit status {returncode}"
    return f"{_STATUS_NAMES.get(status, 'ended by the system')} (0x{status:08X})"


def memory_kills() -> int | None:
    """None: Windows ends no process because memory ran out."""
    return None
