"""Sizing: how much memory an engine will take, read off its files, and how much it took once it is loaded.

Ties the pure estimate to the two things it needs from outside: the headers of the model files and the facts of this machine.
Both block, so both are read in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.model_files import read_shape
from kolosal.engines.memory.placement import DeviceMemory, Estimate, estimate, estimates
from kolosal.engines.parameters import EngineConfig

_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Sizing:
    """The sizes of one engine on one machine."""

    choices: tuple[Estimate, ...]
    """The amounts it can live with, the best first."""
    actual: Callable[[EngineInfo], Estimate]
    """What it takes, by what its worker says that it was loaded with."""

    @classmethod
    def fixed(cls, size: Estimate) -> Sizing:
        """The same size whatever the worker got."""
        return cls((size,), lambda _info: size)


class Sizes(Protocol):
    """Who knows the sizes of engines and of the machine."""

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        """The sizes of an engine.

        Raises:
            ModelFileError: its files cannot be read, or are damaged.
        """
        ...

    async def memory(self) -> MachineMemory:
        """What the machine has, and what is free."""
        ...


class FileSizes:
    """The sizes as the model files tell them, on a real machine."""

    def __init__(self, read_memory: Callable[[], MachineMemory]) -> None:
        """`read_memory` blocks."""
        self._read_memory = read_memory

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        return await asyncio.to_thread(_sizing, config, memory)

    async def memory(self) -> MachineMemory:
        return await asyncio.to_thread(self._read_memory)


def _sizing(config: EngineConfig, memory: MachineMemory) -> Sizing:
    parameters = config.parameters
    shape = read_shape(Path(config.model_path))
    draft = None if parameters.draft_model_path is None else read_shape(Path(parameters.draft_model_path))
    gpus = memory.free.gpus

    def actual(info: EngineInfo) -> Estimate:
        placed = replace(parameters, n_gpu_layers=info.n_gpu_layers)
        return estimate(shape, placed, gpus, cells=info.kv_pool_tokens, draft=draft)

    return Sizing(estimates(shape, parameters, gpus, draft), actual)


class NoSizes:
    """Where nobody counts: every engine fits."""

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:  # noqa: ARG002
        return Sizing.fixed(Estimate(DeviceMemory()))

    async def memory(self) -> MachineMemory:
        return MachineMemory(_UNLIMITED_BYTES, _UNLIMITED_BYTES)
