"""Weights: the part of a load that reads the model file.

It needs few other modules, so that llama.cpp reads while Python still imports the rest of a worker.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kolosal.engines.memory.gguf import GGUF_MAGIC
from kolosal.engines.memory.tensor_overrides import all_overrides
from kolosal.engines.parameters import FittedConfig, FittedParameters, SplitMode
from kolosal.engines.worker.backend import BackendError, OutOfMemory
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.llamacpp.native_log import native_log
from kolosal.engines.worker.llamacpp.page_release import anonymous_bytes, unload_pages_of
from kolosal.engines.worker.llamacpp.tensor_buffers import tensor_buffers
from kolosal.files.regular import open_regular

_PROGRESS_INTERVAL_S = 0.05
"""Shortest time between two progress reports: llama.cpp calls back for every tensor."""

_IMPORTS_BYTES = 32 * 1024 * 1024
"""What Python may take for modules meanwhile."""

_SPLIT_MODE = {SplitMode.NONE: 0, SplitMode.LAYER: 1, SplitMode.ROW: 2}


class LoadError(BackendError):
    """The model cannot be loaded. The message is for the person who asked for it."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model without a context."""

    model: Any
    repacked_bytes: int
    """Of them, laid out anew for the processor: copies, of which the file's pages are let go."""


def load_weights(config: FittedConfig, on_progress: Callable[[float], None]) -> Weights:
    """Load a model's weights.

    Raises:
        LoadError: with llama.cpp's own reason.
    """
    native_log.install()
    native.llama_backend_init()
    is_mapped = config.parameters.use_mmap and may_release_pages(config.parameters)
    before = anonymous_bytes()
    model = _read_file(config, on_progress)
    repacked_bytes = max(0, anonymous_bytes() - before - _IMPORTS_BYTES) if is_mapped else 0
    if repacked_bytes > native.llama_model_size(model) // 2:
        unload_pages_of(Path(config.model_path))
    return Weights(model, repacked_bytes)


def may_release_pages(parameters: FittedParameters) -> bool:
    """Whether pages may be given back to the system. Not where a driver may have lent host memory to a GPU, nor for those who lock memory to be sure of it."""
    return not native.llama_supports_gpu_offload() and not parameters.use_mlock


def _read_file(config: FittedConfig, on_progress: Callable[[float], None]) -> Any:
    path = Path(config.model_path)
    try:
        with open_regular(path) as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as exc:
        raise LoadError(f"The model file cannot be read: {exc.strerror}") from exc
    if magic != GGUF_MAGIC:
        raise LoadError("The file is not a GGUF model: it does not begin with 'GGUF'")
    params, _keep_alive = _model_params(config.parameters, on_progress)
    native_log.begin()
    model = native.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        reason = f"llama.cpp could not load the file: {native_log.reason()}"
        raise OutOfMemory(reason) if native_log.lacked_memory() else LoadError(reason)
    return model


def _model_params(
    parameters: FittedParameters, on_progress: Callable[[float], None]
) -> tuple[native.llama_model_params, tuple[object, ...]]:
    """The native parameters, and what must stay alive while they are used."""
    params = native.llama_model_default_params()
    params.n_gpu_layers = parameters.n_gpu_layers
    params.split_mode = _SPLIT_MODE[parameters.split_mode]
    if parameters.main_gpu_id >= 0:
        params.main_gpu = parameters.main_gpu_id
    split = None
    if parameters.tensor_split:
        split = (ctypes.c_float * max(native.llama_max_devices(), len(parameters.tensor_split)))(
            *parameters.tensor_split
        )
        params.tensor_split = split
    params.load_mode = (native.LLAMA_LOAD_MODE_MMAP if parameters.use_mmap else 0) | (
        native.LLAMA_LOAD_MODE_MLOCK if parameters.use_mlock else 0
    )
    buffers = tensor_buffers(all_overrides(parameters))
    if buffers is not None:
        params.tensor_buft_overrides = ctypes.cast(buffers, ctypes.c_void_p)
    callback = native.llama_progress_callback(_progress_reporter(on_progress))
    params.progress_callback = callback
    return params, (split, buffers, callback)


def _progress_reporter(on_progress: Callable[[float], None]) -> Callable[[float, object], bool]:
    reported_at = 0.0

    def report(fraction: float, _data: object) -> bool:
        nonlocal reported_at
        now = time.monotonic()
        if now - reported_at >= _PROGRESS_INTERVAL_S or fraction >= 1:
            reported_at = now
            on_progress(fraction)
        return True

    return report
