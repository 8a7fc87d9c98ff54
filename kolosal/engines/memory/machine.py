"""What memory this machine has, and how much of it is free now.

Owns what is asked of the system: psutil for the host, the limits of control groups (containers, systemd), NVML for GPUs.
Changes nothing on any device. What cannot be found out is left out: a machine without a driver has no GPUs. Reading
blocks for some milliseconds, the first time up to a second: the event loop calls it in a thread.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from kolosal.engines.memory.policy import Bytes
from kolosal.observe.nvml import GpuFacts, read_gpus

_GPU_LIBRARY = re.compile(r"ggml-(cuda|hip|vulkan|sycl|musa)\b", re.ASCII)
_NO_LIMIT = 1 << 60
"""Control groups of version 1 write a number above this where there is no limit."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, with the index that llama.cpp knows it by."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """All memory that engines can be put into."""

    host_total: int
    host_free: int
    """Bytes that programs can still take; what the system only keeps while nobody wants the memory (its cache of files) counts as free."""
    gpus: tuple[Gpu, ...] = ()

    @property
    def free(self) -> Bytes:
        """What is free of each kind."""
        return Bytes(self.host_free, {gpu.index: gpu.free_bytes for gpu in self.gpus})


def read_memory(cuda_visible_devices: str | None = None, *, root: Path = Path("/")) -> MachineMemory:
    """The memory of this moment. `cuda_visible_devices` is the variable that workers get. Blocks."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    for limit, used in _group_limits(root):
        total, free = min(total, limit), min(free, max(0, limit - used))
    gpus = visible_gpus(read_gpus().gpus, cuda_visible_devices) if has_gpu_backend() else ()
    return MachineMemory(total, free, gpus)


@cache
def has_gpu_backend() -> bool:
    """Whether the installed llama.cpp was built for GPUs with memory of their own. Looks at files, loads nothing."""
    spec = importlib.util.find_spec("llama_cpp")
    places = (spec.submodule_search_locations or ()) if spec is not None else ()
    try:
        return any(
            _GPU_LIBRARY.search(file.name) for place in places for file in Path(place, "lib").iterdir()
        )
    except OSError:
        return False


def visible_gpus(gpus: Sequence[GpuFacts], visible: str | None) -> tuple[Gpu, ...]:
    """Those with memory of their own, in the order in which CUDA counts them.

    `visible` is read as CUDA reads CUDA_VISIBLE_DEVICES (CUDA C++ programming guide, environment variables): indices or beginnings
    of UUIDs; the first that names nothing ends the list.
    """
    chosen = [*gpus]
    if visible is not None:
        chosen.clear()
        for word in (part.strip() for part in visible.split(",")):
            named = [gpu for gpu in gpus if word == str(gpu.index) or (word and gpu.uuid.startswith(word))]
            if not named:
                break
            chosen.append(named[0])
    return tuple(
        Gpu(index, gpu.name, gpu.total_bytes, gpu.free_bytes)
        for index, gpu in enumerate(chosen)
        if gpu.total_bytes is not None and gpu.free_bytes is not None  # else its memory is the host's
    )


# --- control groups ---


def _group_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group (version 1 or 2) that this process is in, as far as it has a limit."""
    if sys.platform != "linux":
        return
    for folder in _group_folders(root):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit and used is not None and limit < _NO_LIMIT:
            yield limit, max(0, used - _file_cache(folder))


def _group_folders(root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        inner = base / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(base))


def _file_cache(folder: Path) -> int:
    """Bytes of the page cache, which the kernel gives up when memory is wanted."""
    try:
        text = (folder / "memory.stat").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = {
        name: int(value)
        for name, _, value in (line.partition(" ") for line in text.splitlines())
        if value.isdigit()
    }
    names = ("inactive_file", "active_file")
    return sum(found.get(f"total_{name}", found.get(name, 0)) for name in names)


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, as for `max`."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
