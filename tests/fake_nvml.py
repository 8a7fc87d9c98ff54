"""A driver of GPUs of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml


def failing(*_: object) -> None:
    """What a driver does that cannot say something."""
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def fake_nvml(*names: str, **functions: Any) -> Any:
    """NVML with GPUs of these names and of 1000 bytes that do not know their power. `functions` take the place of its own."""
    own: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: b"570.1",
        "nvmlDeviceGetCount": lambda: len(names),
        "nvmlDeviceGetHandleByIndex": lambda index: names[index],
        "nvmlDeviceGetName": lambda name: name.encode(),
        "nvmlDeviceGetUUID": lambda name: f"GPU-{name}",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=1000, used=250, free=750),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=40, memory=10),
        "nvmlDeviceGetTemperature": lambda _, _kind: 55,
        "nvmlDeviceGetPowerUsage": failing,
    }
    return SimpleNamespace(**(own | functions))
