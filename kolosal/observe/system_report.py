"""What the machine and our processes use as JSON, in the shape that clients of the first Kolosal server know. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import TypedDict

from kolosal.observe.events import now_ms
from kolosal.observe.nvml import GpuFacts
from kolosal.observe.report import SERVER_NAME
from kolosal.observe.system import SystemUse

_UNITS = ("B", "KB", "MB", "GB", "TB")


class CpuUse(TypedDict):
    """The processor."""

    usage_percent: float
    """Of all cores together, since the answer before."""


class MemoryUse(TypedDict):
    """A memory."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    """What programs can have without others being swapped out."""
    total_formatted: str
    used_formatted: str
    free_formatted: str


class RamUse(MemoryUse):
    """The machine's memory."""

    utilization_percent: float


class EngineMemory(TypedDict):
    """An engine's process."""

    engine_id: str
    memory_bytes: int
    """Resident memory; the model's file counts as far as it is mapped and in memory."""


class ProcessUse(TypedDict):
    """Our own processes."""

    daemon_bytes: int
    engines: list[EngineMemory]


class GpuUtilization(TypedDict):
    """How busy a GPU is; null: the driver does not say."""

    gpu_percent: float | None
    memory_percent: float | None


class GpuState(TypedDict):
    """A GPU; null: the driver does not say."""

    id: int
    name: str
    vendor: str
    utilization: GpuUtilization
    memory: MemoryUse | None
    temperature_celsius: float | None
    power_usage_watts: float | None
    driver_version: str


class SystemSummary(TypedDict):
    """The machine in five numbers."""

    cpu_usage_percent: float
    ram_utilization_percent: float
    gpu_count: int
    average_gpu_utilization_percent: float
    average_vram_utilization_percent: float


class Capabilities(TypedDict):
    """What can be looked at here."""

    cpu: bool
    memory: bool
    gpu: bool


class SystemMetadata(TypedDict):
    """The daemon that looked."""

    version: str
    server: str
    monitoring_capabilities: Capabilities


class SystemMetrics(TypedDict):
    """What the machine uses."""

    timestamp: int
    """Unix time in milliseconds."""
    cpu: CpuUse
    memory: RamUse
    processes: ProcessUse
    gpus: list[GpuState]
    gpu_monitoring_available: bool
    summary: SystemSummary
    metadata: SystemMetadata


def system_report(use: SystemUse) -> SystemMetrics:
    """The machine and our processes."""
    used = use.memory_total - use.memory_available
    memory_percent = round(100 * used / use.memory_total, 1) if use.memory_total else 0.0
    gpus, driver = use.gpus.gpus, use.gpus.driver
    return {
        "timestamp": now_ms(),
        "cpu": {"usage_percent": use.cpu_percent},
        "memory": {
            "total_bytes": use.memory_total,
            "used_bytes": used,
            "free_bytes": use.memory_available,
            "utilization_percent": memory_percent,
            "total_formatted": formatted(use.memory_total),
            "used_formatted": formatted(used),
            "free_formatted": formatted(use.memory_available),
        },
        "processes": {
            "daemon_bytes": use.daemon_bytes,
            "engines": [
                {"engine_id": engine_id, "memory_bytes": size} for engine_id, size in use.worker_bytes.items()
            ],
        },
        "gpus": [_gpu(gpu, driver or "") for gpu in gpus],
        "gpu_monitoring_available": driver is not None,
        "summary": {
            "cpu_usage_percent": use.cpu_percent,
            "ram_utilization_percent": memory_percent,
            "gpu_count": len(gpus),
            "average_gpu_utilization_percent": _mean(gpu.gpu_percent for gpu in gpus),
            "average_vram_utilization_percent": _mean(map(_vram_percent, gpus)),
        },
        "metadata": {
            "version": "1.0",
            "server": SERVER_NAME,
            "monitoring_capabilities": {"cpu": True, "memory": True, "gpu": driver is not None},
        },
    }


def _gpu(gpu: GpuFacts, driver: str) -> GpuState:
    memory: MemoryUse | None = None
    if gpu.total_bytes is not None and gpu.used_bytes is not None:
        free = gpu.total_bytes - gpu.used_bytes
        memory = {
            "total_bytes": gpu.total_bytes,
            "used_bytes": gpu.used_bytes,
            "free_bytes": free,
            "total_formatted": formatted(gpu.total_bytes),
            "used_formatted": formatted(gpu.used_bytes),
            "free_formatted": formatted(free),
        }
    return {
        "id": gpu.index,
        "name": gpu.name,
        "vendor": "NVIDIA",
        "utilization": {"gpu_percent": gpu.gpu_percent, "memory_percent": gpu.memory_percent},
        "memory": memory,
        "temperature_celsius": gpu.temperature_c,
        "power_usage_watts": gpu.power_w,
        "driver_version": driver,
    }


def _vram_percent(gpu: GpuFacts) -> float | None:
    if not gpu.total_bytes or gpu.used_bytes is None:
        return None
    return 100 * gpu.used_bytes / gpu.total_bytes


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 1) if known else 0.0


def formatted(n_bytes: int) -> str:
    """`1.50 GB`, in steps of 1024."""
    size = float(n_bytes)
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} {_UNITS[-1]}"
