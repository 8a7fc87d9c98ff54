"""What the daemon's estimate and the worker's allocation must agree on: how a context is made, and what is left free.

The daemon decides by estimate whether an engine may load, the worker makes the context; where they differed, one would promise
what the other does not take. Pure, and imported by both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kolosal.engines.parameters import MAX_PARALLEL, FittedParameters

HOST_RESERVE_BYTES = 256 * 1024 * 1024
"""Host memory left to the rest of the system, however much a model would take (docs/api/engines.md)."""

GPU_RESERVE_BYTES = 256 * 1024 * 1024
"""Memory of each GPU left free by what is chosen automatically: libraries take some while they compute."""

KV_CELL_STEP = 256
"""Cells: llama.cpp rounds a context up to multiples of this."""

MAX_DRAFT_TOKENS_PER_STEP = 64
"""Draft tokens of all sequences in one step: each needs a row of logits, as wide as the vocabulary, besides the one that every
sequence has. In a step without drafts so many prompt tokens may have such rows."""

_MAX_PREFILL_CELLS = 16_384
"""Tokens of a prompt that the prefill context holds at most; a longer one goes on in steps."""

_SPARE_SLOTS = 16
"""Sequence ids beyond two for each request, for finished sequences whose cells are kept."""

_LEAST_SPARE_SLOTS = 4
"""The same where each id has a recurrent state, or a sliding window of its own."""

_SPARE_STATES_BYTES = 256 * 1024 * 1024
"""Where states are so small that more of them fit into this, there are as many, for checkpoints of prompts."""


@dataclass(frozen=True, slots=True)
class MemoryKind:
    """What a model remembers a sequence by, besides the cells of plain attention."""

    windows: bool = False
    """Whether some layers see a sliding window only."""
    states: bool = False
    """Whether some layers have a recurrent state."""
    state_bytes: int = 0
    """What those of one sequence take, at most; 0 where it is not known."""

    def keeps_windows(self, parameters: FittedParameters) -> bool:
        """Whether layers with a window keep all cells; then each sequence id has a second one, its guard (`llamacpp/cells.py`)."""
        has_ids = 2 * (parameters.n_parallel + 1) <= MAX_PARALLEL
        return self.windows and not self.states and parameters.swa_full and has_ids

    def can_be_cut(self, parameters: FittedParameters) -> bool:
        """Whether any prefix of a sequence can be shared, and its last cells be taken back: not with recurrent states, nor where
        a window has dropped cells."""
        return not self.states and (not self.windows or self.keeps_windows(parameters))


def pool_cells(parameters: FittedParameters) -> int:
    """Cells of the KV cache that an engine asks for."""
    return parameters.kv_pool_tokens or parameters.n_ctx * parameters.n_parallel


def smaller_pools(cells: int, n_ctx: int) -> Iterator[int]:
    """Sizes of a KV cache to try, in cells: the whole, halves of it, and at last that of one request, which is never cut."""
    while cells > n_ctx:
        yield cells
        cells = cells // 2 // KV_CELL_STEP * KV_CELL_STEP
    yield n_ctx


def prefill_cells(parameters: FittedParameters, cells: int, kind: MemoryKind, *, on_gpu: bool) -> int:
    """Cells of the prefill context, beside a KV cache of so many: those of one request, but a quarter of the others at most.

    0 where there is none: its cells move to the KV cache in parts, so that has to have all of them; a GPU reads prompts fast
    enough to do it in steps; a request that runs alone holds up nobody; an engine that has but the cells of one request is short of
    memory; and a sequence id must be left to move them through.
    """
    if not kind.can_be_cut(parameters) or on_gpu or parameters.n_parallel == 1:
        return 0
    if sequence_slots(parameters, kind) == MAX_PARALLEL:
        return 0
    if cells < parameters.n_ctx + KV_CELL_STEP:
        return 0
    return min(parameters.n_ctx, cells // 4, _MAX_PREFILL_CELLS) // KV_CELL_STEP * KV_CELL_STEP


def sequence_slots(parameters: FittedParameters, kind: MemoryKind) -> int:
    """Sequence ids of a context: for those that run, and for finished ones that keep their cells.

    Where any cell can be shared or cut off, an id costs nothing.
    """
    if not parameters.cache_prompt:
        spare = 0
    elif kind.can_be_cut(parameters):
        spare = parameters.n_parallel + _SPARE_SLOTS
    else:
        spare = min(parameters.n_parallel, _LEAST_SPARE_SLOTS)
        if kind.state_bytes and not kind.windows:
            most = parameters.n_parallel + _SPARE_SLOTS
            spare = max(spare, min(_SPARE_STATES_BYTES // kind.state_bytes, most))
    # with guards there are half as many, and one is left to move cells through
    most = MAX_PARALLEL // 2 - 1 if kind.keeps_windows(parameters) else MAX_PARALLEL
    return min(parameters.n_parallel + spare, most)
