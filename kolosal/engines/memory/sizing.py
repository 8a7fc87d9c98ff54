"""Sizing: how much memory an engine will take, read off its files, and how much it took once it is loaded.

Ties the pure estimate to the two things it needs from outside: the headers of the model files and the facts of this machine.
Both block, so both are read in a thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.memory.machine import Machine, MachineMemory
from kolosal.engines.memory.model_files import read_shape
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.memory.placement import DeviceMemory, Estimate, GpuFree, estimate, estimates
from kolosal.engines.parameters import EngineConfig, LoadingParameters

_UNLIMITED_BYTES = 1 << 60


class Sizing(Protocol):
    """The sizes of one engine on one machine."""

    @property
    def choices(self) -> tuple[Estimate, ...]:
        """The amounts it can live with, the best first."""
        ...

    def actual(self, info: EngineInfo) -> Estimate:
        """As the worker says that it was loaded."""
        ...


@dataclass(frozen=True, slots=True)
class FileSizing:
    """The sizes of an engine, from the headers of its files."""

    shape: ModelShape
    parameters: LoadingParameters
    gpus: tuple[GpuFree, ...] = ()
    draft: ModelShape | None = None

    @property
    def choices(self) -> tuple[Estimate, ...]:
        """The amounts it can live with, the best first."""
        return estimates(self.shape, self.parameters, self.gpus, self.draft)

    def actual(self, info: EngineInfo) -> Estimate:
        """As the worker says that it was loaded."""
        parameters = replace(self.parameters, n_gpu_layers=info.n_gpu_layers)
        return estimate(self.shape, parameters, self.gpus, cells=info.kv_pool_tokens, draft=self.draft)


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

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        """The sizes of an engine.

        Raises:
            ModelFileError: its files cannot be read, or are damaged.
        """
        return await asyncio.to_thread(_sizing, config, memory)

    async def memory(self) -> MachineMemory:
        """What the machine has, and what is free."""
        return await asyncio.to_thread(self._machine.read)


def _sizing(config: EngineConfig, memory: MachineMemory) -> FileSizing:
    draft = config.parameters.draft_model_path
    return FileSizing(
        read_shape(Path(config.model_path)),
        config.parameters,
        tuple(GpuFree(gpu.index, gpu.free_bytes) for gpu in memory.gpus),
        None if draft is None else read_shape(Path(draft)),
    )


class NoSizes:
    """Where nobody counts: every engine fits."""

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:  # noqa: ARG002
        """Nothing, for any engine."""
        return _NOTHING

    async def memory(self) -> MachineMemory:
        """More than anybody needs."""
        return MachineMemory(_UNLIMITED_BYTES, _UNLIMITED_BYTES)


@dataclass(frozen=True, slots=True)
class FixedSizing:
    """The same size whatever the worker got."""

    size: Estimate

    @property
    def choices(self) -> tuple[Estimate, ...]:
        """The one size."""
        return (self.size,)

    def actual(self, info: EngineInfo) -> Estimate:  # noqa: ARG002
        """The one size."""
        return self.size


_NOTHING = FixedSizing(Estimate(DeviceMemory()))
