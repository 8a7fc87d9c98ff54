"""What the NVIDIA driver says of the GPUs: read-only facts through NVML.

Owns the import of pynvml and its errors. Changes no setting of any device. A machine without a driver is no error:
the report says why there is nothing to see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU; memory is None where the device does not count its own (unified memory)."""

    index: int
    name: str
    total_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuReport:
    """All GPUs, or why there are none to see."""

    gpus: tuple[GpuFacts, ...] = ()
    driver: str | None = None
    reason: str | None = None


def read_gpus(nvml: Any = pynvml) -> GpuReport:
    """Ask the driver. Takes milliseconds to a second, the first time after boot longer; blocks."""
    try:
        nvml.nvmlInit()
    except pynvml.NVMLError as exc:
        return GpuReport(reason=str(exc))
    try:
        gpus = tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        return GpuReport(gpus, _text(nvml.nvmlSystemGetDriverVersion()))
    except pynvml.NVMLError as exc:
        return GpuReport(reason=str(exc))
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> GpuFacts:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = _text(nvml.nvmlDeviceGetName(handle))
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError:  # integrated GPUs share the machine's memory and report none
        return GpuFacts(index, name, None, None)
    return GpuFacts(index, name, int(memory.total), int(memory.free))


def _text(value: object) -> str:
    """Older bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
