"""What the daemon's estimate and the worker's allocation must agree on: how a context is made, and what is left free.

The daemon decides by estimate whether an engine may load, the worker makes the context; where they differed, one would promise
what the other does not take. Pure, and imported by both.
"""

from __future__ import annotations

from collections.abc import Iterator

from kolosal.engines.parameters import MAX_PARALLEL, LoadingParameters

HOST_RESERVE_BYTES = 256 * 1024 * 1024
"""Host memory left to the rest of the system, however much a model would take (docs/api/engines.md)."""

KV_CELL_STEP = 256
"""Cells: llama.cpp rounds a context up to multiples of this."""

MAX_DRAFT_TOKENS_PER_STEP = 64
"""Draft tokens of all sequences in one step: each needs a row of logits, as wide as the vocabulary, besides the one that every
sequence has. In a step without drafts so many prompt tokens may have such rows."""

_SPARE_SLOTS = 16
"""Sequence ids beyond two for each request, for finished sequences whose cells are kept."""

_MAX_STATEFUL_SPARE_SLOTS = 4
"""The same where each id has a recurrent state, or a sliding window of its own."""


def pool_cells(parameters: LoadingParameters) -> int:
    """Cells of the KV cache that an engine asks for."""
    return parameters.kv_pool_tokens or parameters.n_ctx * parameters.n_parallel


def smaller_pools(cells: int, n_ctx: int) -> Iterator[int]:
    """Sizes of a KV cache to try, in cells: the whole, halves of it, and at last that of one request, which is never cut."""
    while cells > n_ctx:
        yield cells
        cells = cells // 2 // KV_CELL_STEP * KV_CELL_STEP
    yield n_ctx


def sequence_slots(parameters: LoadingParameters, *, plain_attention: bool) -> int:
    """Sequence ids of a context: for those that run, and for finished ones that keep their cells.

    With plain attention, where any cell can be shared or cut off, an id costs nothing.
    """
    if not parameters.cache_prompt:
        spare = 0
    elif plain_attention:
        spare = parameters.n_parallel + _SPARE_SLOTS
    else:
        spare = min(parameters.n_parallel, _MAX_STATEFUL_SPARE_SLOTS)
    return min(parameters.n_parallel + spare, MAX_PARALLEL)
