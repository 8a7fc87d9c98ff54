"""GPUs as the NVIDIA driver tells of them: read-only facts through NVML.

Owns the import of pynvml and its errors. Changes no setting of any device. A machine without a driver is no error: the report
says why there is nothing to see.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU; memory is None where the device does not count its own (unified memory)."""

    index: int
    """As the driver counts."""
    name: str
    total_bytes: int | None
    free_bytes: int | None
    uuid: str = ""
    """Empty where the device does not say."""


@dataclass(frozen=True, slots=True)
class GpuReport:
    """All GPUs, or why there are none to see."""

    gpus: tuple[GpuFacts, ...] = ()
    driver: str | None = None
    reason: str | None = None


def read_gpus(nvml: Any = None) -> GpuReport:
    """Ask the driver. Takes milliseconds to a second, the first time after boot longer; blocks."""
    import pynvml  # noqa: PLC0415 - 2 MiB, and most machines that run this have no such driver

    nvml = nvml or pynvml
    try:
        nvml.nvmlInit()
    except pynvml.NVMLError as exc:
        return GpuReport(reason=str(exc))
    try:
        gpus = tuple(_gpu(nvml, index, pynvml.NVMLError) for index in range(nvml.nvmlDeviceGetCount()))
        return GpuReport(gpus, _text(nvml.nvmlSystemGetDriverVersion()))
    except pynvml.NVMLError as exc:
        return GpuReport(reason=str(exc))
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int, failure: type[Exception]) -> GpuFacts:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name, uuid = _text(nvml.nvmlDeviceGetName(handle)), ""
    with contextlib.suppress(failure):
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except failure:  # integrated GPUs share the machine's memory and report none
        return GpuFacts(index, name, None, None, uuid)
    return GpuFacts(index, name, int(memory.total), int(memory.free), uuid)


def _text(value: object) -> str:
    """Older bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
