"""What is said where memory runs out: to clients, and by llama.cpp, the drivers and the system."""

from __future__ import annotations

import re

from kolosal.engines.memory.accounting import ManagedEngine
from kolosal.engines.memory.placement import Estimate
from kolosal.engines.memory.policy import Bytes
from kolosal.errors import InsufficientMemory, LoadFailed

RETRY_AFTER_S = 5
"""When a client for whose model there was no memory may come back."""

_OUT_OF_MEMORY = re.compile(
    r"out of memory|no room for|failed to allocate|unable to allocate|cannot allocate|cudaMalloc|bad_alloc"
    r"|MemoryError|failed to create context|insufficient memory|mem_buffer != NULL|killed by SIGKILL",
    re.IGNORECASE,
)
"""How llama.cpp, the drivers and the system say that memory was short."""


def lacked_memory(error: LoadFailed) -> bool:
    """Whether a load failed because memory was short, by the words of whoever refused it."""
    return _OUT_OF_MEMORY.search(error.message) is not None


def no_memory(engine: ManagedEngine, least: Estimate, free: Bytes) -> InsufficientMemory:
    """There is not even memory for the least it can live with."""
    need = least.need
    lacking = [f"{_size(max(0, free.host))} of host memory"] if need.host > free.host else []
    lacking += [
        f"{_size(max(0, free.gpu(index)))} on GPU {index}"
        for index, n_bytes in need.gpus.items()
        if n_bytes > free.gpu(index)
    ]
    return InsufficientMemory(
        f"{_needs_of(engine, least)}. Free are {' and '.join(lacking)},"
        " and not enough engines are left that may be unloaded",
        retry_after_s=RETRY_AFTER_S,
    )


def no_memory_in_time(engine: ManagedEngine, least: Estimate, wait_s: float) -> InsufficientMemory:
    """Those whose memory it needs were busy for too long."""
    return InsufficientMemory(
        f"{_needs_of(engine, least)}, and no engine fell idle within {wait_s:g} seconds",
        retry_after_s=RETRY_AFTER_S,
    )


def nobody_waits(engine: ManagedEngine) -> InsufficientMemory:
    """All who wanted an engine left while it waited for memory."""
    return InsufficientMemory(
        f"Loading engine '{engine.engine_id}' was given up: nobody waits for it any more"
    )


def _needs_of(engine: ManagedEngine, least: Estimate) -> str:
    """The beginning of a sentence: which engine, and how much of what."""
    parts = [f"{_size(least.host.total)} of host memory"]
    parts += [f"{_size(part.total)} on GPU {index}" for index, part in least.gpus.items()]
    return f"Engine '{engine.engine_id}' needs {' and '.join(parts)}"


def _size(n_bytes: int) -> str:
    """As people write it: `1.2 GiB`."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def ran_out_of_memory(engine: ManagedEngine, error: LoadFailed) -> InsufficientMemory:
    """The estimate said that there was memory, and there was none."""
    return InsufficientMemory(
        f"There was not enough memory for engine '{engine.engine_id}', and no idle engine is left to unload."
        f" {error.message}",
        retry_after_s=RETRY_AFTER_S,
    )
