"""Estimate: how many bytes an engine will take, on the host and on each GPU, before it is loaded. Pure arithmetic.

Follows what llama.cpp does with the loading parameters: which layers go to which device, which cells the KV cache has, what a
step needs besides. Calibrated against real workers (tests/engines/memory/test_placement.py): within a quarter of what they take.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate

from kolosal.engines.memory.ggml import cache_type
from kolosal.engines.memory.limits import (
    KV_CELL_STEP,
    MAX_DRAFT_TOKENS_PER_STEP,
    pool_cells,
    prefill_cells,
    sequence_slots,
)
from kolosal.engines.memory.model_shape import INPUT, Layer, ModelShape, place_of
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.memory.tensor_overrides import HOST, given_overrides
from kolosal.engines.parameters import FittedParameters, FlashAttention, SplitMode

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
    """With the saved conversations of the host."""
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
    parameters: FittedParameters,
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
    _place(devices, shape, parameters, gpus, cells)
    if draft is not None:
        _place(devices, draft, of_draft(parameters), gpus, cells)
    devices[_HOST] += _prefill_context(shape, parameters, cells, on_gpu=len(devices) > 1)
    if len(devices) > 1:
        for index in devices:
            devices[index] += DeviceMemory(process=_GPU_CONTEXT_BYTES)
    saved = DeviceMemory(kv_cache=parameters.cache_host_bytes if parameters.cache_prompt else 0)
    host = devices.pop(_HOST) + saved + DeviceMemory(process=_PROCESS_BYTES + shape.n_vocab * _TOKEN_BYTES)
    return Estimate(host, dict(devices), host.weights if parameters.use_mmap else 0, cells)


def of_draft(parameters: FittedParameters) -> FittedParameters:
    """What of an engine's parameters holds for its draft model's tensors too."""
    return replace(parameters, n_cpu_moe=0, override_tensor="")


def layer_split(
    shape: ModelShape, parameters: FittedParameters, gpus: Mapping[int, int], cells: int
) -> list[int]:
    """How many layers go to each GPU: all to the one with the most room where that holds them, else as many to each as it has room
    for; none where there is no room for all that `n_gpu_layers` wants. `gpus` are the bytes each may take."""
    elsewhere = _Elsewhere(shape, parameters, gpus)
    wanted = layers_on_gpus(shape, parameters)
    parts = [part.total for part in _parts(shape, parameters, elsewhere, cells)][
        len(shape.layers) + 1 - wanted :
    ]
    step = _GPU_CONTEXT_BYTES + _compute_bytes(shape, parameters, cells, _slots(shape, parameters))
    room = {gpu: n_bytes - step - elsewhere.held[gpu] for gpu, n_bytes in gpus.items()}
    largest = max(room, key=lambda gpu: room[gpu])
    if sum(parts) <= room[largest]:
        return [wanted if gpu == largest else 0 for gpu in gpus]
    counts = []
    for left in room.values():
        taken = bisect_right([*accumulate(parts)], left)
        counts.append(taken)
        parts = parts[taken:]
    return [] if parts else counts


def _place(
    devices: defaultdict[int, DeviceMemory],
    shape: ModelShape,
    parameters: FittedParameters,
    gpus: Mapping[int, int],
    cells: int,
) -> None:
    """Add one model to what the devices hold."""
    of_layers = _devices(shape, parameters, gpus)
    elsewhere = _Elsewhere(shape, parameters, gpus)
    for device, n_bytes in elsewhere.held.items():
        devices[device] += DeviceMemory(weights=n_bytes)
    devices[_HOST] += DeviceMemory(weights=shape.input_bytes - elsewhere.of_input)
    *layers, output = _parts(shape, parameters, elsewhere, cells)
    for part, device in zip(layers, of_layers, strict=False):
        devices[device] += part
    if of_layers[-1] != _HOST or not shape.tied:
        devices[of_layers[-1]] += output
    compute = _compute_bytes(shape, parameters, cells, _slots(shape, parameters))
    for device in {*of_layers, *elsewhere.held}:
        devices[device] += DeviceMemory(compute=compute)


def _prefill_context(
    shape: ModelShape, parameters: FittedParameters, cells: int, *, on_gpu: bool
) -> DeviceMemory:
    """What the context for long prompts takes once it is needed."""
    cells = prefill_cells(parameters, cells, shape.memory_kind, on_gpu=on_gpu)
    if not cells:
        return DeviceMemory()
    kv_cache = sum(_cache_bytes(shape, layer, parameters, cells, 1) for layer in shape.layers)
    return DeviceMemory(kv_cache=kv_cache, compute=_compute_bytes(shape, parameters, cells, 1))


def _parts(
    shape: ModelShape, parameters: FittedParameters, elsewhere: _Elsewhere, cells: int
) -> list[DeviceMemory]:
    """What each layer takes where it lies, and the output at the end."""
    slots = _slots(shape, parameters)
    layers = [
        DeviceMemory(layer.weight_bytes - without, _cache_bytes(shape, layer, parameters, cells, slots))
        for layer, without in zip(shape.layers, elsewhere.of_layers, strict=True)
    ]
    return [*layers, DeviceMemory(shape.output_bytes - elsewhere.of_output)]


def _slots(shape: ModelShape, parameters: FittedParameters) -> int:
    return sequence_slots(parameters, shape.memory_kind)


class _Elsewhere:
    """The weights that do not lie where their layer does."""

    def __init__(self, shape: ModelShape, parameters: FittedParameters, gpus: Mapping[int, int]) -> None:
        self.held: defaultdict[int, int] = defaultdict(int)
        """Bytes by device."""
        self.of_layers = [0] * len(shape.layers)
        """Bytes that each layer is without."""
        self.of_input = self.of_output = 0
        experts = [0] * len(shape.layers)
        overrides = given_overrides(parameters.override_tensor)
        for name, n_bytes in shape.tensors.items() if overrides else ():
            chosen = next((each for each in overrides if re.search(each.pattern, name)), None)
            if chosen is None or not (chosen.buffer == HOST or chosen.gpu in gpus):
                continue  # what only llama.cpp knows counts where its layer is
            place, is_expert = place_of(name)
            self.held[_HOST if chosen.gpu is None else chosen.gpu] += n_bytes
            if place is not None and place < len(experts):
                self.of_layers[place] += n_bytes
                experts[place] += n_bytes * is_expert
            elif name == INPUT:
                self.of_input += n_bytes
            else:
                self.of_output += n_bytes
        for number, layer in enumerate(shape.layers[: parameters.n_cpu_moe]):
            if left := layer.expert_bytes - experts[number]:
                self.of_layers[number] += left
                self.held[_HOST] += left


def layers_on_gpus(shape: ModelShape, parameters: FittedParameters) -> int:
    """How many layers are wanted on GPUs; the output is one."""
    count = len(shape.layers) + 1
    return count if parameters.n_gpu_layers < 0 else min(parameters.n_gpu_layers, count)


def _devices(shape: ModelShape, parameters: FittedParameters, gpus: Mapping[int, int]) -> tuple[int, ...]:
    """The GPU of each layer, and of the output at the end. The last layers go to GPUs first."""
    count, wanted = len(shape.layers) + 1, layers_on_gpus(shape, parameters)
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
    shape: ModelShape, layer: Layer, parameters: FittedParameters, cells: int, slots: int
) -> int:
    """Keys and values of one layer, or the states of all sequences where it has no attention."""
    if not layer.kv_heads:
        return shape.state_values * 4 * slots
    if layer.windowed and not shape.memory_kind.keeps_windows(parameters):
        cells = min(cells, shape.window * slots + parameters.n_ubatch)
    key = shape.key_width * cache_type(parameters.cache_type_k).bytes_per_value
    value = shape.value_width * cache_type(parameters.cache_type_v).bytes_per_value
    return int(-(-cells // KV_CELL_STEP) * KV_CELL_STEP * layer.kv_heads * (key + value))


def _compute_bytes(shape: ModelShape, parameters: FittedParameters, cells: int, slots: int) -> int:
    """The buffers of one step: logits, activations, and the mask or the scores of attention."""
    tokens = min(parameters.n_ubatch, parameters.n_batch, cells)
    logits = shape.n_vocab * 4 * min(tokens, slots + MAX_DRAFT_TOKENS_PER_STEP)
    activations = tokens * 4 * (2 * shape.n_ff + 8 * shape.n_embd)
    scores = shape.n_heads * cells * 4 if parameters.flash_attn is FlashAttention.OFF else 0
    mask = cells * 6 if any(layer.kv_heads for layer in shape.layers) else 0
    return logits + activations + tokens * (scores + mask)
