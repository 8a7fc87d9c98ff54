"""GPUs as a driver of the test's own tells of them."""

from __future__ import annotations

import pytest

from kolosal.observe.nvml import GpuFacts, GpuReport, read_gpus
from tests.fake_nvml import failing, fake_nvml


def test_gpus_are_read() -> None:
    gpu = GpuFacts(0, "A", 1000, 750, 250, "GPU-A", 40.0, 10.0, 55.0, None)
    assert read_gpus(fake_nvml("A")) == GpuReport((gpu,), "570.1")


def test_a_gpu_that_counts_no_memory_is_read() -> None:
    [gpu] = read_gpus(fake_nvml("A", nvmlDeviceGetMemoryInfo=failing)).gpus
    assert (gpu.name, gpu.total_bytes, gpu.free_bytes, gpu.uuid) == ("A", None, None, "GPU-A")


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetName"])
def test_a_driver_that_fails_is_a_reason_and_no_error(function: str) -> None:
    report = read_gpus(fake_nvml("A", **{function: failing}))
    assert (report.reason, report.driver) == ("Not Supported", None)
