"""What the machine says of its memory: real here, and made up for control groups and GPUs."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from kolosal.engines.memory.machine import Gpu, MachineMemory, has_gpu_backend, read_memory, visible_gpus
from kolosal.observe.nvml import read_gpus
from tests.fake_nvml import failing, fake_nvml

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


def test_this_machine_has_memory() -> None:
    memory = read_memory()
    assert 0 < memory.host_free <= memory.host_total <= psutil.virtual_memory().total


def group(root: Path, cgroup: str, **files: str) -> MachineMemory:
    """The memory of a machine whose process is in a control group; `/` in names is written as `__`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_memory(root=root)


@LINUX
def test_the_tightest_limit_counts(tmp_path: Path) -> None:
    memory = group(
        tmp_path,
        "0::/a/b\n",
        a__memory_dot_max="3000000\n",
        a__memory_dot_current="2000000\n",
        a__b__memory_dot_max="max\n",
        a__b__memory_dot_current="100\n",
    )
    assert (memory.host_total, memory.host_free) == (3_000_000, 1_000_000)


@LINUX
def test_files_that_may_be_dropped_are_free(tmp_path: Path) -> None:
    stat = "anon 5\ninactive_file 300000\nactive_file 200000\n"
    memory = group(
        tmp_path, "0::/\n", memory_dot_max="1000000", memory_dot_current="900000", memory_dot_stat=stat
    )
    assert memory.host_free == 600_000


@LINUX
def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    memory = group(
        tmp_path,
        "3:cpuset:/\n4:memory:/docker/x\n0::/\n",
        memory__docker__x__memory_dot_limit_in_bytes="1000000",
        memory__docker__x__memory_dot_usage_in_bytes="400000",
        memory__memory_dot_limit_in_bytes=str(2**63 - 4096),
        memory__memory_dot_usage_in_bytes="5",
    )
    assert (memory.host_total, memory.host_free) == (1_000_000, 600_000)


@LINUX
@pytest.mark.parametrize("text", ["", "nonsense", "0::/../../etc", "0::/gone"])
def test_without_a_limit_the_machine_counts(tmp_path: Path, text: str) -> None:
    assert group(tmp_path, text).host_total == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["a", "b", "c"]), ("", []), ("2,0", ["c", "a"]), ("GPU-b", ["b"]), ("1,9,0", ["b"]), ("-1", [])],
)
def test_gpus_are_counted_as_cuda_counts_them(visible: str | None, names: list[str]) -> None:
    found = visible_gpus(read_gpus(fake_nvml("a", "b", "c")).gpus, visible)
    assert found == tuple(Gpu(index, name, 1000, 750) for index, name in enumerate(names))


def test_gpus_without_memory_of_their_own_are_left_out() -> None:
    driver = fake_nvml("integrated", "a")
    told = driver.nvmlDeviceGetMemoryInfo
    driver.nvmlDeviceGetMemoryInfo = lambda name: failing() if name == "integrated" else told(name)
    assert [gpu.name for gpu in visible_gpus(read_gpus(driver).gpus, None)] == ["a"]


def test_a_machine_without_a_driver_has_no_gpus() -> None:
    assert visible_gpus(read_gpus(fake_nvml(nvmlInit=failing)).gpus, None) == ()


def test_whether_llama_cpp_uses_gpus_is_seen_without_loading_it() -> None:
    assert has_gpu_backend() in (True, False)
