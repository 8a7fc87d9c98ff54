"""How many KV cells to ask llama.cpp for. Pure arithmetic on the model's metadata and the free memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kolosal.engines.parameters import CacheType, LoadingParameters

_CELL_STEP = 256
"""llama.cpp rounds a context up to this many cells."""

_HOST_RESERVE_BYTES = 512 * 1024 * 1024
"""Left free on the host: compute buffers, and the rest of the system."""

Metadata = Callable[[str], str | None]


class GgmlType(NamedTuple):
    """A tensor type: its number in `enum ggml_type` and its mean size."""

    number: int
    bytes_per_value: float


GGML_TYPES: dict[CacheType, GgmlType] = {
    "f32": GgmlType(0, 4),
    "f16": GgmlType(1, 2),
    "q4_0": GgmlType(2, 18 / 32),
    "q4_1": GgmlType(3, 20 / 32),
    "q5_0": GgmlType(6, 22 / 32),
    "q5_1": GgmlType(7, 24 / 32),
    "q8_0": GgmlType(8, 34 / 32),
    "iq4_nl": GgmlType(20, 18 / 32),
    "bf16": GgmlType(30, 2),
}


def kv_bytes_per_cell(metadata: Metadata, parameters: LoadingParameters) -> int | None:
    """Bytes of keys and values one token takes over all layers; None where the metadata does not say.

    An upper estimate: layers with a sliding window or without attention need less.
    """
    arch = metadata("general.architecture")
    layers = _integer(metadata(f"{arch}.block_count"))
    heads = _integer(metadata(f"{arch}.attention.head_count"))
    kv_heads = _integer(metadata(f"{arch}.attention.head_count_kv")) or heads
    width = _integer(metadata(f"{arch}.embedding_length"))
    if not (layers and heads and kv_heads and width):
        return None
    key = _integer(metadata(f"{arch}.attention.key_length")) or width // heads
    value = _integer(metadata(f"{arch}.attention.value_length")) or width // heads
    per_head = (
        key * GGML_TYPES[parameters.cache_type_k].bytes_per_value
        + value * GGML_TYPES[parameters.cache_type_v].bytes_per_value
    )
    return int(layers * kv_heads * per_head)


def pool_sizes(
    parameters: LoadingParameters, bytes_per_cell: int | None, free_bytes: int | None
) -> Iterator[int]:
    """Pools to try, largest first. An explicit one is tried alone; one request's window is never cut."""
    if parameters.kv_pool_tokens is not None:
        yield max(parameters.kv_pool_tokens, parameters.n_ctx)
        return
    cells = parameters.n_ctx * parameters.n_parallel
    if bytes_per_cell and free_bytes is not None:
        cells = min(
            cells, max(0, free_bytes - _HOST_RESERVE_BYTES) // bytes_per_cell // _CELL_STEP * _CELL_STEP
        )
    while cells > parameters.n_ctx:
        yield cells
        cells = cells // 2 // _CELL_STEP * _CELL_STEP
    yield parameters.n_ctx


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
