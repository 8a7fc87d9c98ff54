"""What is said to clients where memory runs out."""

from __future__ import annotations

from kolosal.engines.memory.accounting import ManagedEngine
from kolosal.engines.memory.placement import Estimate
from kolosal.engines.memory.policy import Bytes, size_text
from kolosal.errors import InsufficientMemory, LoadFailed

RETRY_AFTER_S = 5
"""When a client for whose model there was no memory may come back."""


def no_memory(engine: ManagedEngine, least: Estimate, free: Bytes) -> InsufficientMemory:
    """There is not even memory for the least it can live with."""
    need = least.need
    lacking = [f"{size_text(max(0, free.host))} of host memory"] if need.host > free.host else []
    lacking += [
        f"{size_text(max(0, free.gpu(index)))} on GPU {index}"
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


def pinned_rival(engine: ManagedEngine, rival: ManagedEngine) -> InsufficientMemory:
    """One that stays in memory is of the same exclusive group."""
    both = "', '".join(sorted(engine.groups & rival.groups))
    return InsufficientMemory(
        f"Engine '{engine.engine_id}' cannot be loaded beside '{rival.engine_id}', which is pinned:"
        f" they are of the exclusive group '{both}'"
    )


def nobody_waits(engine: ManagedEngine) -> InsufficientMemory:
    """All who wanted an engine left while it waited for memory."""
    return InsufficientMemory(
        f"Loading engine '{engine.engine_id}' was given up: nobody waits for it any more"
    )


def _needs_of(engine: ManagedEngine, least: Estimate) -> str:
    """The beginning of a sentence: which engine, and how much of what."""
    parts = [f"{size_text(least.host.total)} of host memory"]
    parts += [f"{size_text(part.total)} on GPU {index}" for index, part in least.gpus.items()]
    return f"Engine '{engine.engine_id}' needs {' and '.join(parts)}"


def ran_out_of_memory(engine: ManagedEngine, error: LoadFailed) -> InsufficientMemory:
    """The estimate said that there was memory, and there was none."""
    return InsufficientMemory(
        f"There was not enough memory for engine '{engine.engine_id}', and no idle engine is left to unload."
        f" {error.message}",
        retry_after_s=RETRY_AFTER_S,
    )
