"""GPUs as the NVIDIA driver tells of them: read-only facts through NVML.

Owns the import of pynvml and its errors. Changes no setting of any device. A machine without a driver is no error: the report
says why there is nothing to see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One GPU; None: the driver does not say. Integrated ones share the machine's memory and tell of none."""

    index: int
    """As the driver counts."""
    name: str
    total_bytes: int | None
    free_bytes: int | None
    used_bytes: int | None = None
    uuid: str = ""
    """Empty where the device does not say."""
    gpu_percent: float | None = None
    memory_percent: float | None = None
    """How busy its memory interface is."""
    temperature_c: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class GpuReport:
    """All GPUs, or why there are none to see."""

    gpus: tuple[GpuFacts, ...] = ()
    driver: str | None = None
    """Its version; None where there is no driver to ask."""
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
        gpus = tuple(_read_gpu(nvml, index, pynvml) for index in range(nvml.nvmlDeviceGetCount()))
        return GpuReport(gpus, _text(nvml.nvmlSystemGetDriverVersion()))
    except pynvml.NVMLError as exc:
        return GpuReport(reason=str(exc))
    finally:
        nvml.nvmlShutdown()


def _read_gpu(nvml: Any, index: int, pynvml: Any) -> GpuFacts:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def said(ask: Callable[..., Any], *more: Any) -> Any:
        try:
            return ask(handle, *more)
        except pynvml.NVMLError:  # not every device knows everything of itself
            return None

    memory = said(nvml.nvmlDeviceGetMemoryInfo)
    rates = said(nvml.nvmlDeviceGetUtilizationRates)
    temperature = said(nvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
    milliwatts = said(nvml.nvmlDeviceGetPowerUsage)
    return GpuFacts(
        index,
        _text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=None if memory is None else int(memory.total),
        free_bytes=None if memory is None else int(memory.free),
        used_bytes=None if memory is None else int(memory.used),
        uuid=_text(said(nvml.nvmlDeviceGetUUID) or ""),
        gpu_percent=None if rates is None else float(rates.gpu),
        memory_percent=None if rates is None else float(rates.memory),
        temperature_c=None if temperature is None else float(temperature),
        power_w=None if milliwatts is None else round(milliwatts / 1000, 1),
    )


def _text(value: object) -> str:
    """Older bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
