"""How many KV cells to ask llama.cpp for. Pure arithmetic on the model's metadata and the free memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from kolosal.engines.memory.ggml import cache_type
from kolosal.engines.memory.limits import HOST_RESERVE_BYTES, KV_CELL_STEP, pool_cells, smaller_pools
from kolosal.engines.parameters import FittedParameters

Metadata = Callable[[str], str | None]


def metadata_number(metadata: Metadata, name: str) -> int | None:
    """A number of the model's architecture, where the metadata has one."""
    text = metadata(f"{metadata('general.architecture')}.{name}")
    return int(text) if text is not None and text.isdigit() else None


def kv_bytes_per_cell(metadata: Metadata, parameters: FittedParameters) -> int | None:
    """Bytes of keys and values one token takes over all layers; None where the metadata does not say.

    An upper estimate: layers with a sliding window or without attention need less.
    """

    number = partial(metadata_number, metadata)
    layers, width = number("block_count"), number("embedding_length")
    heads = number("attention.head_count")
    kv_heads = number("attention.head_count_kv") or heads
    if not (layers and heads and kv_heads and width):
        return None
    key = number("attention.key_length") or width // heads
    value = number("attention.value_length") or width // heads
    per_head = (
        key * cache_type(parameters.cache_type_k).bytes_per_value
        + value * cache_type(parameters.cache_type_v).bytes_per_value
    )
    return int(layers * kv_heads * per_head)


def pool_sizes(
    parameters: FittedParameters, bytes_per_cell: int | None, free_bytes: int | None
) -> Iterator[int]:
    """Pools to try, largest first. An explicit one is tried alone; one request's window is never cut."""
    if parameters.kv_pool_tokens is not None:
        yield max(parameters.kv_pool_tokens, parameters.n_ctx)
        return
    cells = pool_cells(parameters)
    if bytes_per_cell and free_bytes is not None:
        fitting = max(0, free_bytes - HOST_RESERVE_BYTES) // bytes_per_cell
        cells = min(cells, fitting // KV_CELL_STEP * KV_CELL_STEP)
    yield from smaller_pools(cells, parameters.n_ctx)
