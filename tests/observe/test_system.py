"""What the machine uses, on a driver of the test's own."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from kolosal.observe.system import SystemMonitor
from kolosal.observe.system_report import formatted, system_report


class FakeNvml:
    """One GPU that does not know its power."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, *, driver: bool = True) -> None:
        self.driver = driver
        self.reads = 0

    def nvmlInit(self) -> None:
        self.reads += 1
        if not self.driver:
            raise self.NVMLError

    def nvmlShutdown(self) -> None: ...

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"570.1"

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, _handle: int) -> str:
        return "GPU"

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> Any:
        return SimpleNamespace(total=1000, used=250)

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> Any:
        return SimpleNamespace(gpu=40, memory=10)

    def nvmlDeviceGetTemperature(self, _handle: int, _kind: int) -> int:
        return 55

    def nvmlDeviceGetPowerUsage(self, _handle: int) -> int:
        raise self.NVMLError


async def test_gpus_memory_and_processes() -> None:
    use = await SystemMonitor(nvml=FakeNvml()).sample({"a": os.getpid(), "gone": 2**22 - 1})
    report = system_report(use)
    [gpu] = report["gpus"]
    assert (gpu["temperature_celsius"], gpu["power_usage_watts"], gpu["driver_version"]) == (
        55.0,
        None,
        "570.1",
    )
    assert gpu["memory"] is not None
    assert gpu["memory"]["free_bytes"] == 750
    assert report["summary"]["average_vram_utilization_percent"] == 25.0
    assert [row["engine_id"] for row in report["processes"]["engines"]] == ["a"]
    assert 0 < report["memory"]["used_bytes"] < report["memory"]["total_bytes"]


async def test_a_machine_without_a_driver_says_so() -> None:
    report = system_report(await SystemMonitor(nvml=FakeNvml(driver=False)).sample({}))
    assert (report["gpus"], report["gpu_monitoring_available"]) == ([], False)


async def test_many_who_ask_share_an_answer_for_a_second() -> None:
    now, nvml = [10.0], FakeNvml()
    monitor = SystemMonitor(lambda: now[0], nvml)
    first = await monitor.sample({})
    now[0] += 0.9
    assert await monitor.sample({}) is first
    now[0] += 0.2
    await monitor.sample({})
    assert nvml.reads == 2


def test_sizes_are_formatted() -> None:
    assert [formatted(size) for size in (0, 1536, 5 * 1024**3)] == ["0.00 B", "1.50 KB", "5.00 GB"]


async def test_busy_cores_are_seen_whatever_thread_asks() -> None:
    now = [10.0]
    monitor = SystemMonitor(lambda: now[0], FakeNvml())
    seen = []
    for _ in range(3):
        sum(number * number for number in range(1_000_000))
        seen.append((await monitor.sample({})).cpu_percent)
        now[0] += 2
    assert all(0 < percent <= 100 for percent in seen)
