"""What the machine uses, on a driver of the test's own."""

from __future__ import annotations

import os

from kolosal.observe.system import SystemMonitor
from kolosal.observe.system_report import formatted, system_report
from tests.fake_nvml import failing, fake_nvml


async def test_gpus_memory_and_processes() -> None:
    use = await SystemMonitor(nvml=fake_nvml("GPU")).sample({"a": os.getpid(), "gone": 2**22 - 1})
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
    report = system_report(await SystemMonitor(nvml=fake_nvml(nvmlInit=failing)).sample({}))
    assert (report["gpus"], report["gpu_monitoring_available"]) == ([], False)


async def test_many_who_ask_share_an_answer_for_a_second() -> None:
    now, reads = [10.0], []
    monitor = SystemMonitor(lambda: now[0], fake_nvml(nvmlInit=lambda: reads.append(now[0])))
    first = await monitor.sample({})
    now[0] += 0.9
    assert await monitor.sample({}) is first
    now[0] += 0.2
    await monitor.sample({})
    assert reads == [10.0, 11.1]


async def test_gpus_are_left_alone_until_somebody_asks() -> None:
    monitor = SystemMonitor(nvml=fake_nvml("GPU"))
    assert (await monitor.glance({})).gpus.gpus == ()
    assert len((await monitor.sample({})).gpus.gpus) == 1
    assert len((await monitor.glance({})).gpus.gpus) == 1


def test_sizes_are_formatted() -> None:
    assert [formatted(size) for size in (0, 1536, 5 * 1024**3)] == ["0.00 B", "1.50 KB", "5.00 GB"]


async def test_busy_cores_are_seen_whatever_thread_asks() -> None:
    now = [10.0]
    monitor = SystemMonitor(lambda: now[0], fake_nvml())
    seen = []
    for _ in range(3):
        sum(number * number for number in range(1_000_000))
        seen.append((await monitor.sample({})).cpu_percent)
        now[0] += 2
    assert all(0 < percent <= 100 for percent in seen)
