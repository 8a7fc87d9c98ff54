"""Estimate: how many bytes an engine will take, on the host and on each GPU, before it is loaded. Pure arithmetic.

Follows what llama.cpp does with the loading parameters: which layers go to which device, which cells the KV cache has, what a
step needs besides. Calibrated against real workers (tests/engines/memory/test_placement.py): within a quarter of what they take.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from kolosal.engines.memory.ggml import cache_type
from kolosal.engines.memory.limits import (
    KV_CELL_STEP,
    MAX_DRAFT_TOKENS_PER_STEP,
    pool_cells,
    sequence_slots,
    smaller_pools,
)
from kolosal.engines.memory.model_shape import Layer, ModelShape
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.parameters import FlashAttention, LoadingParameters, SplitMode

_PROCESS_BYTES = 63 * 1024 * 1024
"""A worker without a model: Python, numpy, llama.cpp; and 11 MiB of the process that renders its chat template."""
_TOKEN_BYTES = 400
"""Host memory of one entry of the vocabulary: llama.cpp's tables, and those for grammars."""
_GPU_CONTEXT_BYTES = 450 * 1024 * 1024
"""What a driver takes on each GPU, and about as much on the host, before anything is in it."""
_HOST = -1
"""In place of a GPU's index."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What one device holds of an engine, in bytes."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    process: int = 0
    """The program, its tables and its driver."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute + self.process

    def __add__(self, other: DeviceMemory) -> DeviceMemory:
        return DeviceMemory(
            self.weights + other.weights,
            self.kv_cache + other.kv_cache,
            self.compute + other.compute,
            self.process + other.process,
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory of one engine by device and by purpose."""

    host: DeviceMemory
    gpus: Mapping[int, DeviceMemory] = field(default_factory=dict)
    mapped: int = 0
    """Bytes of `host.weights` that are mapped from the file: the system counts them as free, as it can drop them."""
    cells: int = 0
    """Cells of the KV cache: one a token."""

    @property
    def need(self) -> Bytes:
        """The same without the purposes, in bytes: what is compared with what is free."""
        return Bytes(self.host.total, {index: part.total for index, part in self.gpus.items()})


def estimate(
    shape: ModelShape,
    parameters: LoadingParameters,
    gpus: Mapping[int, int] = {},
    *,
    cells: int | None = None,
    draft: ModelShape | None = None,
) -> Estimate:
    """What an engine of these parameters takes with a KV cache of `cells`; None: of as many as the parameters ask for.

    `gpus` are the free bytes of each GPU that llama.cpp can use, by index.
    """
    cells = cells or pool_cells(parameters)
    devices: defaultdict[int, DeviceMemory] = defaultdict(DeviceMemory)
    for model in (shape,) if draft is None else (shape, draft):
        _place(devices, model, parameters, gpus, cells)
    if len(devices) > 1:
        for index in devices:
            devices[index] += DeviceMemory(process=_GPU_CONTEXT_BYTES)
    host = devices.pop(_HOST) + DeviceMemory(process=_PROCESS_BYTES + shape.n_vocab * _TOKEN_BYTES)
    return Estimate(host, dict(devices), host.weights if parameters.use_mmap else 0, cells)


def estimates(
    shape: ModelShape,
    parameters: LoadingParameters,
    gpus: Mapping[int, int] = {},
    draft: ModelShape | None = None,
) -> tuple[Estimate, ...]:
    """The amounts an engine can live with, the best first: the whole KV cache it wants, halves of it, that of one request."""
    cells = pool_cells(parameters)
    choices = smaller_pools(cells, parameters.n_ctx) if parameters.kv_pool_tokens is None else (cells,)
    return tuple(estimate(shape, parameters, gpus, cells=each, draft=draft) for each in choices)


def _place(
    devices: defaultdict[int, DeviceMemory],
    shape: ModelShape,
    parameters: LoadingParameters,
    gpus: Mapping[int, int],
    cells: int,
) -> None:
    """Add one model to what the devices hold."""
    *of_layers, of_output = _devices(shape, parameters, gpus)
    slots = sequence_slots(parameters, plain_attention=shape.has_plain_attention)
    devices[_HOST] += DeviceMemory(weights=shape.input_bytes)
    for layer, device in zip(shape.layers, of_layers, strict=True):
        kv_cache = _cache_bytes(shape, layer, parameters, cells, slots)
        devices[device] += DeviceMemory(layer.weight_bytes, kv_cache)
    if of_output != _HOST or not shape.tied:
        devices[of_output] += DeviceMemory(weights=shape.output_bytes)
    compute = _compute_bytes(shape, parameters, cells, slots)
    for device in {*of_layers, of_output}:
        devices[device] += DeviceMemory(compute=compute)


def _devices(shape: ModelShape, parameters: LoadingParameters, gpus: Mapping[int, int]) -> tuple[int, ...]:
    """The GPU of each layer, and of the output at the end. The last layers go to GPUs first."""
    count = len(shape.layers) + 1
    wanted = count if parameters.n_gpu_layers < 0 else min(parameters.n_gpu_layers, count)
    if not gpus or not wanted:
        return (_HOST,) * count
    on_host = (_HOST,) * (count - wanted)
    indices = [*gpus]
    if parameters.split_mode is SplitMode.NONE:
        chosen = parameters.main_gpu_id if parameters.main_gpu_id in gpus else indices[0]
        return on_host + (chosen,) * wanted
    given = parameters.tensor_split[: len(gpus)]
    shares = given if sum(given) > 0 else [max(free_bytes, 1) for free_bytes in gpus.values()]
    ends = [*accumulate(shares)]
    bounds = [end / ends[-1] for end in ends]
    return on_host + tuple(indices[bisect_right(bounds, n / wanted)] for n in range(wanted))


def _cache_bytes(
    shape: ModelShape, layer: Layer, parameters: LoadingParameters, cells: int, slots: int
) -> int:
    """Keys and values of one layer, or the states of all sequences where it has no attention."""
    if not layer.kv_heads:
        return shape.state_values * 4 * slots
    if layer.windowed:
        cells = min(cells, shape.window * slots + parameters.n_ubatch)
    key = shape.key_width * cache_type(parameters.cache_type_k).bytes_per_value
    value = shape.value_width * cache_type(parameters.cache_type_v).bytes_per_value
    return int(-(-cells // KV_CELL_STEP) * KV_CELL_STEP * layer.kv_heads * (key + value))


def _compute_bytes(shape: ModelShape, parameters: LoadingParameters, cells: int, slots: int) -> int:
    """The buffers of one step: logits, activations, and the mask or the scores of attention."""
    tokens = min(parameters.n_ubatch, parameters.n_batch, cells)
    logits = shape.n_vocab * 4 * min(tokens, slots + MAX_DRAFT_TOKENS_PER_STEP)
    activations = tokens * 4 * (2 * shape.n_ff + 8 * shape.n_embd)
    scores = shape.n_heads * cells * 4 if parameters.flash_attn is FlashAttention.OFF else 0
    mask = cells * 6 if any(layer.kv_heads for layer in shape.layers) else 0
    return logits + activations + tokens * (scores + mask)
