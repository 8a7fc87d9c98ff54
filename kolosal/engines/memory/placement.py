"""Estimate: how many bytes an engine will take, on the host and on each GPU, before it is loaded. Pure arithmetic.

Follows what llama.cpp does with the loading parameters: which layers go to which device, which cells the KV cache has, what a
step needs besides. Calibrated against real workers (tests/engines/memory/test_placement.py): within a quarter of what they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class GpuFree:
    """A GPU that llama.cpp can use, as far as placing goes."""

    index: int
    free_bytes: int


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
        """The sums."""
        return Bytes(self.host.total, {index: part.total for index, part in self.gpus.items()})

    def __add__(self, other: Estimate) -> Estimate:
        names = {**self.gpus, **other.gpus}
        return Estimate(
            self.host + other.host,
            {
                name: self.gpus.get(name, DeviceMemory()) + other.gpus.get(name, DeviceMemory())
                for name in names
            },
            self.mapped + other.mapped,
            self.cells,
        )


def estimate(
    shape: ModelShape,
    parameters: LoadingParameters,
    gpus: Sequence[GpuFree] = (),
    *,
    cells: int | None = None,
    draft: ModelShape | None = None,
) -> Estimate:
    """What an engine of these parameters takes with a KV cache of `cells`; None: of as many as the parameters ask for."""
    cells = cells or pool_cells(parameters)
    whole = _estimate_model(shape, parameters, gpus, cells)
    if draft is not None:
        whole += _estimate_model(draft, parameters, gpus, cells)
    drivers = {index: DeviceMemory(process=_GPU_CONTEXT_BYTES) for index in whole.gpus}
    process = _PROCESS_BYTES + shape.n_vocab * _TOKEN_BYTES + (_GPU_CONTEXT_BYTES if drivers else 0)
    return whole + Estimate(DeviceMemory(process=process), drivers)


def estimates(
    shape: ModelShape,
    parameters: LoadingParameters,
    gpus: Sequence[GpuFree] = (),
    draft: ModelShape | None = None,
) -> tuple[Estimate, ...]:
    """The amounts an engine can live with, the best first: the whole KV cache it wants, halves of it, that of one request."""
    cells = pool_cells(parameters)
    choices = smaller_pools(cells, parameters.n_ctx) if parameters.kv_pool_tokens is None else (cells,)
    return tuple(estimate(shape, parameters, gpus, cells=each, draft=draft) for each in choices)


def _estimate_model(
    shape: ModelShape, parameters: LoadingParameters, gpus: Sequence[GpuFree], cells: int
) -> Estimate:
    devices = _devices(shape, parameters, gpus)
    slots = sequence_slots(parameters, plain_attention=shape.has_plain_attention)
    host = DeviceMemory(weights=shape.input_bytes)
    placed: dict[int, DeviceMemory] = {}
    mapped = shape.input_bytes
    for layer, device in zip(shape.layers, devices, strict=False):
        kv_cache = _cache_bytes(shape, layer, parameters, cells, slots)
        if device is None:
            host += DeviceMemory(weights=layer.weight_bytes, kv_cache=kv_cache)
            mapped += layer.weight_bytes
        else:
            placed[device] = placed.get(device, DeviceMemory()) + DeviceMemory(
                weights=layer.weight_bytes, kv_cache=kv_cache
            )
    output = devices[-1]
    if output is not None:
        placed[output] = placed.get(output, DeviceMemory()) + DeviceMemory(weights=shape.output_bytes)
    elif not shape.tied:
        host += DeviceMemory(weights=shape.output_bytes)
        mapped += shape.output_bytes
    compute = _compute_bytes(shape, parameters, cells, slots)
    gpu_parts = {index: part + DeviceMemory(compute=compute) for index, part in placed.items()}
    if None in devices:
        host += DeviceMemory(compute=compute)
    return Estimate(host, gpu_parts, mapped if parameters.use_mmap else 0, cells)


def _devices(
    shape: ModelShape, parameters: LoadingParameters, gpus: Sequence[GpuFree]
) -> tuple[int | None, ...]:
    """The GPU of each layer, and of the output at the end; None is the host. The last layers go to GPUs first."""
    count = len(shape.layers) + 1
    wanted = count if parameters.n_gpu_layers < 0 else min(parameters.n_gpu_layers, count)
    if not gpus or not wanted:
        return (None,) * count
    first = count - wanted
    if parameters.split_mode is SplitMode.NONE:
        chosen = [gpu.index for gpu in gpus if gpu.index == parameters.main_gpu_id] or [gpus[0].index]
        return (None,) * first + (chosen[0],) * wanted
    given = parameters.tensor_split[: len(gpus)]
    shares = list(given) if sum(given) > 0 else [float(max(gpu.free_bytes, 1)) for gpu in gpus]
    shares += [0.0] * (len(gpus) - len(shares))
    whole, bounds, so_far = sum(shares), [], 0.0
    for share in shares:
        so_far += share
        bounds.append(so_far / whole)
    placed = [
        next((i for i, bound in enumerate(bounds) if n / wanted < bound), len(gpus) - 1)
        for n in range(wanted)
    ]
    return (None,) * first + tuple(gpus[i].index for i in placed)


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
