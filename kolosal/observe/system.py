"""SystemMonitor: what this machine and our processes use now.

Owns the calls to psutil and NVML, which block and therefore run in a thread; answers are shared for a second, so that
many who ask cost no more than one. Changes no setting of any device.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

FRESH_S = 1.0
"""How long an answer holds."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU; None: the driver does not say."""

    index: int
    name: str
    driver: str
    total_bytes: int | None
    used_bytes: int | None
    gpu_percent: float | None
    memory_percent: float | None
    """How busy its memory interface is."""
    temperature_c: float | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class SystemUse:
    """The machine at one moment."""

    cpu_percent: float
    """Of all cores together, since the moment before."""
    memory_total: int
    memory_available: int
    gpus: tuple[GpuUse, ...]
    gpu_driver: bool
    """Whether there is a driver to ask."""
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
        self._cpu = _cpu_seconds()  # the first moment: usage is what happened since the one before

    async def sample(self, worker_pids: Mapping[str, int]) -> SystemUse:
        """The machine now, or up to a second ago. `worker_pids` are those of the engines that have one."""
        async with self._lock:
            if self._last is None or self._clock() - self._last_at >= FRESH_S:
                self._last = await asyncio.to_thread(self._read, dict(worker_pids))
                self._last_at = self._clock()
            return self._last

    def _read(self, worker_pids: Mapping[str, int]) -> SystemUse:
        memory = psutil.virtual_memory()
        gpus = self._read_gpus()
        resident = {engine_id: _resident(pid) for engine_id, pid in worker_pids.items()}
        return SystemUse(
            cpu_percent=self._cpu_percent(),
            memory_total=memory.total,
            memory_available=memory.available,
            gpus=gpus or (),
            gpu_driver=gpus is not None,
            daemon_bytes=psutil.Process().memory_info().rss,
            worker_bytes={engine_id: size for engine_id, size in resident.items() if size is not None},
        )

    def _cpu_percent(self) -> float:
        """How busy the cores were since the last call. psutil's own count is one for each thread that asks."""
        (busy_before, all_before), self._cpu = self._cpu, _cpu_seconds()
        busy, total = self._cpu
        passed = total - all_before
        return round(min(100.0, max(0.0, 100 * (busy - busy_before) / passed)), 1) if passed > 0 else 0.0

    def _read_gpus(self) -> tuple[GpuUse, ...] | None:
        """All GPUs; None where there is no driver."""
        if self._nvml is None:
            import pynvml  # noqa: PLC0415 - most who start the daemon never look here

            self._nvml = pynvml
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return None
        try:
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            return tuple(_read_gpu(nvml, index, driver) for index in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError:
            return None
        finally:
            nvml.nvmlShutdown()


def _cpu_seconds() -> tuple[float, float]:
    """Seconds that the cores were busy, and all seconds, since the machine started."""
    times = psutil.cpu_times()._asdict()
    for counted_elsewhere in ("guest", "guest_nice"):  # in `user` and `nice`
        times.pop(counted_elsewhere, None)
    total = sum(times.values())
    return total - times["idle"] - times.get("iowait", 0.0), total


def _read_gpu(nvml: Any, index: int, driver: str) -> GpuUse:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def said(ask: Callable[..., Any], *more: Any) -> Any:
        try:
            return ask(handle, *more)
        except nvml.NVMLError:  # not every device knows everything of itself
            return None

    memory = said(nvml.nvmlDeviceGetMemoryInfo)
    rates = said(nvml.nvmlDeviceGetUtilizationRates)
    temperature = said(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
    milliwatts = said(nvml.nvmlDeviceGetPowerUsage)
    return GpuUse(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        driver=driver,
        total_bytes=None if memory is None else int(memory.total),
        used_bytes=None if memory is None else int(memory.used),
        gpu_percent=None if rates is None else float(rates.gpu),
        memory_percent=None if rates is None else float(rates.memory),
        temperature_c=None if temperature is None else float(temperature),
        power_w=None if milliwatts is None else round(milliwatts / 1000, 1),
    )


def _resident(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it has just ended
        return None


def _text(value: object) -> str:
    """Older bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
