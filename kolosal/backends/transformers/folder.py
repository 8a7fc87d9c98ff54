"""The folder of a model in the Hugging Face format, as the daemon looks at it: what must be there, and what it will take.

Reads headers and JSON only, bounded; imports neither PyTorch nor transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from kolosal.backends.transformers.options import TransformersOptions
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.model_files import model_path_error, shown_path
from kolosal.engines.memory.placement import DeviceMemory, Estimate
from kolosal.engines.parameters import FittedParameters
from kolosal.errors import ModelFileError
from kolosal.files.regular import open_regular, read_regular

_MAX_JSON_BYTES = 32 * 1024 * 1024
_MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file: https://huggingface.co/docs/safetensors/index#format"""
_LENGTH_BYTES = 8

_PROCESS_BYTES = 420 * 1024 * 1024
"""A worker without a model: Python, PyTorch and transformers."""
_GPU_CONTEXT_BYTES = 500 * 1024 * 1024
_4BIT_BYTES = 0.6
"""Of a weight that bitsandbytes has quantised, scales included."""

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

_INDEX = "model.safetensors.index.json"
"""Says in which part each weight of a model is that has several."""

_READ = (".safetensors", ".json", ".model", ".txt", ".jinja", ".py")
"""Files that transformers looks at."""


def check_folder(path: Path, check_file: Callable[[Path], object]) -> None:
    """See that a folder holds a model whose weights can be read without running code of theirs.

    `check_file` refuses a file that must not be read.

    Raises:
        ModelFileError: it holds none.
    """
    if not path.is_dir():
        raise model_path_error(
            "invalid_model_path_type",
            f"{shown_path(str(path))} is no folder: the backend 'transformers' loads one with config.json and *.safetensors",
        )
    names = sorted(file.name for file in path.iterdir())
    if "config.json" not in names:
        raise model_path_error(
            "model_file_not_found", f"The folder {shown_path(str(path))} holds no config.json"
        )
    if not any(name.endswith(".safetensors") for name in names):
        others = " Weights in other formats are not read: they can run code" if _has_others(names) else ""
        raise model_path_error(
            "model_file_not_found", f"The folder {shown_path(str(path))} holds no *.safetensors.{others}"
        )
    for name in names:
        if name.endswith(_READ):
            check_file(path / name)
    if _INDEX in names:
        _check_index(path, names)


def _check_index(path: Path, names: list[str]) -> None:
    """See that the parts of a model that has several are in its folder: an index could name any file."""
    parts = _json(path / _INDEX).get("weight_map")
    if not isinstance(parts, dict):
        raise model_path_error("invalid_model_format", f"{_INDEX} says of no weights where they are")
    missing = next((str(part) for part in parts.values() if part not in names), None)
    if missing is not None:
        raise model_path_error(
            "model_file_not_found",
            f"A part is missing: {_INDEX} names {shown_path(missing)}, which is not in the folder",
        )


def _has_others(names: list[str]) -> bool:
    return any(name.endswith((".bin", ".pt", ".pth", ".ckpt", ".gguf")) for name in names)


def folder_estimate(
    path: Path, parameters: FittedParameters, options: TransformersOptions, memory: MachineMemory
) -> Estimate:
    """What an engine over a folder takes.

    Raises:
        ModelFileError: a header makes no sense.
    """
    weights = sum(_weight_bytes(file, options) for file in path.glob("*.safetensors"))
    config = _json(path / "config.json")
    cells = (parameters.n_ctx or _number(config, "max_position_embeddings")) * parameters.n_parallel
    held = DeviceMemory(weights=weights, kv_cache=cells * _cell_bytes(config, options), compute=weights // 16)
    process = DeviceMemory(process=_PROCESS_BYTES)
    gpu = _gpu(options.device, memory)
    if gpu is None:
        return Estimate(process + held, cells=cells)
    return Estimate(process, {gpu: held + DeviceMemory(process=_GPU_CONTEXT_BYTES)}, cells=cells)


def _gpu(device: str, memory: MachineMemory) -> int | None:
    """The GPU that a device means; None for the host, and for GPUs that nobody knows the memory of."""
    kind, _, number = device.partition(":")
    known = [gpu.index for gpu in memory.gpus]
    if kind not in ("auto", "cuda") or not known:
        return None
    return int(number) if number and int(number) in known else known[0]


def _weight_bytes(file: Path, options: TransformersOptions) -> int:
    try:
        with open_regular(file) as opened:
            length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"its header has {length} bytes")
            header = orjson.loads(opened.read(length))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        return sum(_tensor_bytes(tensor, options) for tensor in tensors)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise model_path_error(
            "invalid_model_format", f"{shown_path(file.name)} is no safetensors file that can be read: {exc}"
        ) from exc


def _tensor_bytes(tensor: dict[str, Any], options: TransformersOptions) -> int:
    count, own = math.prod(tensor["shape"]), _BYTES.get(tensor["dtype"], 1)
    if options.quantization is not None and len(tensor["shape"]) > 1:
        return int(count * _4BIT_BYTES)
    return int(count * _DTYPE_BYTES.get(options.dtype, own))


def _cell_bytes(config: dict[str, Any], options: TransformersOptions) -> int:
    """Keys and values of one token."""
    heads = _number(config, "num_attention_heads")
    width = _number(config, "head_dim") or _number(config, "hidden_size") // max(1, heads)
    kv_heads = _number(config, "num_key_value_heads") or heads
    own = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    value = _DTYPE_BYTES.get(options.dtype) or _DTYPE_BYTES.get(own, 4)
    return 2 * _number(config, "num_hidden_layers") * kv_heads * width * value


def _json(path: Path) -> dict[str, Any]:
    """A model's configuration; that of its text part where it has several."""
    try:
        found = orjson.loads(read_regular(path, _MAX_JSON_BYTES))
        return dict(found.get("text_config") or found)
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise ModelFileError(
            f"{path.name} cannot be read: {exc}", param="model_path", code="invalid_model_format"
        ) from exc


def _number(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0
