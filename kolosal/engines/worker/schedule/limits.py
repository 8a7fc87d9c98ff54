"""SchedulerLimits: what bounds a step. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_APART_TOKENS = 128
"""Uncached tokens of a prompt that is worth the prefill context: the cells before them have to be copied there."""

TILE_TOKENS = 64
"""llama.cpp on a CPU computes attention for so many tokens of a step together, where it has as many; what is left over takes as long as
a tile that is full."""

MOST_HOLES = 1024
"""Attention walks over so many in a moment, and sequences that make way are copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """What bounds a step."""

    n_parallel: int
    """Running sequences at most."""
    n_batch: int
    """Tokens in a step at most."""
    n_prefill: int
    """Prompt tokens in a step while nobody decodes, and in a chunk of the prefill context."""
    target_step_s: float
    """Duration to aim for while somebody decodes."""
    prefill_cells: int = 0
    """Tokens of one sequence that the prefill context holds; 0: there is none."""
    least_apart: int = LEAST_APART_TOKENS
    """Uncached tokens from which on a prompt is computed there."""
    most_holes: int = MOST_HOLES
    """Free cells that may lie among those in use before sequences behind them make way; or a share of the pool, where that is more."""
    cell_s: float = 0.0
    """What a cell adds to each step of streams that do not see it; 0: not known."""


def whole_tiles(n_tokens: int) -> int:
    """The most of so many tokens that fill tiles, where that leaves out few of them; else all."""
    return n_tokens - n_tokens % TILE_TOKENS if n_tokens >= 4 * TILE_TOKENS else n_tokens
