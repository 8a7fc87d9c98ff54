"""SystemMonitor: what this machine and our processes use now.

Owns the calls to psutil, which block as those to the driver of GPUs do, and therefore run in a thread; answers are shared for a
second, so that many who ask cost no more than one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from kolosal.observe.nvml import GpuReport, read_gpus

FRESH_S = 1.0
"""How long an answer holds."""


@dataclass(frozen=True, slots=True)
class SystemUse:
    """The machine at one moment."""

    cpu_percent: float
    """Of all cores together, since the moment before."""
    memory_total: int
    memory_available: int
    gpus: GpuReport
    daemon_bytes: int
    """Resident memory of this process."""
    worker_bytes: Mapping[str, int]
    """Resident memory of the workers, by engine."""


class SystemMonitor:
    """Used on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, nvml: Any = None) -> None:
        self._clock = clock
        self._nvml = nvml
        self._lock = asyncio.Lock()
        self._last: SystemUse | None = None
        self._last_at = 0.0
        self._sees_gpus = False
        """Whether anybody has asked: the driver's library takes memory, and time with each look."""
        self._cpu = _cpu_seconds()  # the first moment: usage is what happened since the one before

    async def sample(self, worker_pids: Mapping[str, int]) -> SystemUse:
        """The machine now, or up to a second ago. `worker_pids` are those of the engines that have one."""
        if not self._sees_gpus:
            self._sees_gpus, self._last = True, None
        return await self.glance(worker_pids)

    async def glance(self, worker_pids: Mapping[str, int]) -> SystemUse:
        """The same, but that GPUs are left out until `sample` was called once."""
        async with self._lock:
            if self._last is None or self._clock() - self._last_at >= FRESH_S:
                self._last = await asyncio.to_thread(self._read, dict(worker_pids))
                self._last_at = self._clock()
            return self._last

    def _read(self, worker_pids: Mapping[str, int]) -> SystemUse:
        memory = psutil.virtual_memory()
        resident = {engine_id: _resident(pid) for engine_id, pid in worker_pids.items()}
        return SystemUse(
            cpu_percent=self._cpu_percent(),
            memory_total=memory.total,
            memory_available=memory.available,
            gpus=read_gpus(self._nvml) if self._sees_gpus else GpuReport(),
            daemon_bytes=psutil.Process().memory_info().rss,
            worker_bytes={engine_id: size for engine_id, size in resident.items() if size is not None},
        )

    def _cpu_percent(self) -> float:
        """How busy the cores were since the last call. psutil's own count is one for each thread that asks."""
        (busy_before, all_before), self._cpu = self._cpu, _cpu_seconds()
        busy, total = self._cpu
        passed = total - all_before
        return round(min(100.0, max(0.0, 100 * (busy - busy_before) / passed)), 1) if passed > 0 else 0.0


def _cpu_seconds() -> tuple[float, float]:
    """Seconds that the cores were busy, and all seconds, since the machine started."""
    times = psutil.cpu_times()._asdict()
    for counted_elsewhere in ("guest", "guest_nice"):  # in `user` and `nice`
        times.pop(counted_elsewhere, None)
    total = sum(times.values())
    return total - times["idle"] - times.get("iowait", 0.0), total


def _resident(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it has just ended
        return None
