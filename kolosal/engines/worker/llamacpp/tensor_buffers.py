"""Where llama.cpp keeps single tensors: `tensor_buft_overrides`, an array of patterns and buffer types.

The package has no functions of ggml's devices, so they are taken from its libraries.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from typing import Any

from kolosal.engines.memory.tensor_overrides import HOST, TensorOverride
from kolosal.engines.worker.backend import BackendError
from kolosal.engines.worker.llamacpp.native import native


class _TensorBuftOverride(ctypes.Structure):
    """`llama_model_tensor_buft_override`."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def tensor_buffers(overrides: Sequence[TensorOverride]) -> ctypes.Array[_TensorBuftOverride] | None:
    """The array for llama.cpp, which must stay alive while the model is loaded; None where there is nothing to say.

    Raises:
        BackendError: there is no buffer of that name, or llama.cpp takes fewer.
    """
    if not overrides:
        return None
    most = int(native.llama_max_tensor_buft_overrides()) - 1  # one ends the array
    if len(overrides) > most:
        raise BackendError(f"{len(overrides)} tensor overrides, and llama.cpp takes {most}")
    known = _buffer_types()
    unknown = next((each.buffer for each in overrides if each.buffer not in known), None)
    if unknown is not None:
        raise BackendError(
            f"override_tensor: there is no buffer {unknown[:60]!r}; there are {', '.join(sorted(known))}"
        )
    rows = [_TensorBuftOverride(each.pattern.encode(), known[each.buffer]) for each in overrides]
    return (_TensorBuftOverride * (len(rows) + 1))(*rows)


def _buffer_types() -> dict[str, int]:
    """The buffer types of the host and of all devices, by their names."""
    package = importlib.import_module("llama_cpp._ggml")
    extensions = importlib.import_module("llama_cpp._ctypes_extensions")
    ggml = package.libggml
    base = extensions.load_shared_library("ggml-base", package.libggml_base_path)
    count = _function(ggml, "ggml_backend_dev_count", ctypes.c_size_t)
    get = _function(ggml, "ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    type_of = _function(base, "ggml_backend_dev_buffer_type", ctypes.c_void_p, ctypes.c_void_p)
    name_of = _function(base, "ggml_backend_buft_name", ctypes.c_char_p, ctypes.c_void_p)
    types = filter(None, (type_of(get(index)) for index in range(count())))
    found = {name_of(each).decode(): each for each in types}
    host = _function(base, "ggml_backend_cpu_buffer_type", ctypes.c_void_p)()
    return found | {HOST: host}


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, list(arguments)
    return function
