"""Sizing: how much memory an engine will take, read off its files, and how much it took once it is loaded.

Ties the pure estimate to the two things it needs from outside: the headers of the model files and the facts of this machine.
Both block, so both are read in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias

from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.memory.fit import Fit, LoadPlan, unlimited
from kolosal.engines.memory.loadable import check_gpus, check_loadable
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.model_files import PartCheck, read_shape
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.memory.placement import DeviceMemory, Estimate, estimate
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.errors import ModelFileError
from kolosal.files.deadline import NoAnswer
from kolosal.files.in_thread import in_thread

_UNLIMITED_BYTES = 1 << 60

FileCheck: TypeAlias = Callable[[str], PartCheck]
"""For a model's path, what says of its file and of each further part whether it may be read. Both block."""


def any_file(_model_path: str) -> PartCheck:
    """Where every file may be read."""
    return lambda _path: None


class Sizing(Protocol):
    """The sizes of one engine on one machine. None of these blocks."""

    def plans(self, free: Bytes) -> tuple[LoadPlan, ...]:
        """The amounts it can live with where it is as fast as this much memory allows, the best first."""
        ...

    def grown(self, plan: LoadPlan, free: Bytes) -> LoadPlan:
        """A plan that fits, with as much context as there is room for."""
        ...

    def smaller(self, plan: LoadPlan) -> LoadPlan | None:
        """A plan that takes less, for a load that found less memory than was estimated; None where there is none."""
        ...

    def actual(self, plan: LoadPlan, info: EngineInfo) -> Estimate:
        """What it takes, by what its worker says that it was loaded with."""
        ...


class FixedSizing:
    """The same size whatever there is room for."""

    def __init__(self, config: EngineConfig, size: Estimate) -> None:
        self._plan = unlimited(config.parameters, size)

    def plans(self, free: Bytes) -> tuple[LoadPlan, ...]:  # noqa: ARG002
        return (self._plan,)

    def grown(self, plan: LoadPlan, free: Bytes) -> LoadPlan:  # noqa: ARG002
        return plan

    def smaller(self, plan: LoadPlan) -> LoadPlan | None:  # noqa: ARG002
        return None

    def actual(self, plan: LoadPlan, info: EngineInfo) -> Estimate:  # noqa: ARG002
        return plan.estimate


class ModelSizing(Fit):
    """As the model's header tells them."""

    def __init__(
        self,
        shape: ModelShape,
        parameters: LoadingParameters,
        draft: ModelShape | None,
        gpus: Mapping[int, int],
    ) -> None:
        """`gpus`: free bytes of each, as far as llama.cpp is left to spread layers by them."""
        super().__init__(shape, parameters, draft)
        self._gpus = gpus

    def actual(self, plan: LoadPlan, info: EngineInfo) -> Estimate:
        placed = replace(plan.parameters, n_gpu_layers=info.n_gpu_layers)
        return estimate(self._shape, placed, self._gpus, cells=info.kv_pool_tokens, draft=self._draft)


class Sizes(Protocol):
    """Who knows the sizes of engines and of the machine."""

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        """The sizes of an engine.

        Raises:
            ModelFileError: its files cannot be read, or are damaged.
            LoadFailed: it cannot be loaded with its parameters.
        """
        ...

    async def memory(self) -> MachineMemory:
        """What the machine has, and what is free."""
        ...


class FileSizes:
    """The sizes as the model files tell them, on a real machine."""

    def __init__(
        self,
        read_memory: Callable[[], MachineMemory],
        file_checks: Callable[[], FileCheck] = lambda: any_file,
    ) -> None:
        """`read_memory` blocks. `file_checks` is asked at every load, on the event loop, which files may be read then."""
        self._read_memory = read_memory
        self._file_checks = file_checks

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        try:
            return await in_thread(_sizing, config, memory, self._file_checks())
        except NoAnswer as exc:
            raise ModelFileError(
                f"The model file cannot be read: {exc.strerror}", param="model_path"
            ) from None

    async def memory(self) -> MachineMemory:
        return await in_thread(self._read_memory)


def _sizing(config: EngineConfig, memory: MachineMemory, file_check: FileCheck) -> Sizing:
    parameters = config.parameters

    def shape_of(model_path: str) -> ModelShape:
        path, check_part = Path(model_path), file_check(model_path)
        check_part(path)
        return read_shape(path, check_part)

    shape = shape_of(config.model_path)
    draft = None if parameters.draft_model_path is None else shape_of(parameters.draft_model_path)
    gpus = memory.free.gpus
    check_loadable(shape, parameters, draft)
    check_gpus(parameters, len(gpus))
    return ModelSizing(shape, parameters, draft, gpus)


class NoSizes:
    """Where nobody counts: every engine fits."""

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:  # noqa: ARG002
        return FixedSizing(config, Estimate(DeviceMemory()))

    async def memory(self) -> MachineMemory:
        return MachineMemory(_UNLIMITED_BYTES, _UNLIMITED_BYTES)
