"""How much memory an engine over another backend than llama.cpp takes, by the files that it loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kolosal.backends.registry import ECHO, TRANSFORMERS
from kolosal.backends.transformers.folder import check_folder, folder_estimate
from kolosal.backends.transformers.options import options_of
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.placement import DeviceMemory, Estimate
from kolosal.engines.memory.sizing import FileCheck, FixedSizing, Sizes, Sizing
from kolosal.engines.parameters import LLAMACPP, EngineConfig, FittedParameters
from kolosal.errors import ModelFileError
from kolosal.files.deadline import NoAnswer
from kolosal.files.in_thread import in_thread

_PROCESS_BYTES = 50 * 1024 * 1024
"""A worker without a model: Python, and what reads frames."""


class BackendSizes:
    """The sizes of engines, whatever their backend."""

    def __init__(self, of_llamacpp: Sizes, file_checks: Callable[[], FileCheck]) -> None:
        """`file_checks` is asked at every load which files may be read then."""
        self._of_llamacpp = of_llamacpp
        self._file_checks = file_checks

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        if config.backend == LLAMACPP:
            return await self._of_llamacpp.of(config, memory)
        try:
            return FixedSizing(config, await in_thread(_estimate, config, memory, self._file_checks()))
        except NoAnswer as exc:
            raise ModelFileError(f"The model cannot be read: {exc.strerror}", param="model_path") from None

    async def memory(self) -> MachineMemory:
        return await self._of_llamacpp.memory()


def _estimate(config: EngineConfig, memory: MachineMemory, file_check: FileCheck) -> Estimate:
    if not config.model_path or config.backend == ECHO:
        return Estimate(DeviceMemory(process=_PROCESS_BYTES))
    path, check = Path(config.model_path), file_check(config.model_path)
    check(path)
    if config.backend == TRANSFORMERS:
        check_folder(path, check)
        return folder_estimate(
            path, FittedParameters.of(config.parameters), options_of(config.backend_options), memory
        )
    return Estimate(DeviceMemory(weights=files_bytes(path), process=_PROCESS_BYTES))


def files_bytes(path: Path) -> int:
    """Bytes of a file, or of all that lie in a folder; of what is not there, none."""
    try:
        files = path.iterdir() if path.is_dir() else (path,)
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0
