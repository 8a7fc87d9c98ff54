"""What spawning and ending a worker needs on Windows. Same functions as `process_posix`."""

from __future__ import annotations

from typing import TypedDict

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


class SpawnOptions(TypedDict):
    """Keyword arguments for `asyncio.create_subprocess_exec`."""

    creationflags: int


def spawn_options() -> SpawnOptions:
    """A process group of its own and no console window: Ctrl-C must not end the workers before the daemon does."""
    return {"creationflags": _CREATE_NEW_PROCESS_GROUP | _CREATE_NO_WINDOW}


def describe_exit(returncode: int) -> str:
    """An exit status in words, e.g. `access violation (0xC0000005)`."""
    status = returncode & 0xFFFF_FFFF
    if status < 0x8000_0000:
        return f"exit status {returncode}"
    return f"{_STATUS_NAMES.get(status, 'ended by the system')} (0x{status:08X})"


def memory_kills() -> None:
    """Windows ends no process because memory ran out."""
    return
