"""Checkpoints: where in a prompt its memory is kept as it is there, for models whose memory cannot be cut.

A recurrent state, or a sliding window that has dropped cells, serves another prompt only as a whole. So a prompt is read in parts
that end where others are likely to go another way, and there a sequence id of its own keeps what has been read. Which places
those are is what Marconi (https://arxiv.org/abs/2411.19379) found to pay: where prompts have parted, and where they end. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

MIN_DISTANCE = 64
"""Tokens from one checkpoint to the next: fewer are computed again in a moment."""


def places(tokens: list[int], n_found: int, n_shared: int, control_tokens: frozenset[int]) -> list[int]:
    """Lengths of the beginnings of a prompt that are worth keeping, in order. `n_found` tokens of it are there already.

    Where it parts from another prompt, after `n_shared` tokens; before the first control token that is far enough, where a system
    prompt ends; before the last one, where the model's turn begins: the conversation's next turn has the same up to there, also
    where it leaves thoughts out. Without control tokens the last is all but its last token.
    """
    end = len(tokens) - 1
    first = next((at for at in range(n_found + MIN_DISTANCE, end) if tokens[at] in control_tokens), end)
    last = next((at for at in range(end, n_found, -1) if tokens[at] in control_tokens), end)
    return spaced((n_shared, first, last), n_found)


def spaced(wanted: Iterable[int], n_found: int) -> list[int]:
    """Of these places those that are worth it, the shorter of two that are near each other."""
    kept: list[int] = []
    for place in sorted(wanted):
        if place - (kept[-1] if kept else n_found) >= MIN_DISTANCE:
            kept.append(place)
    return kept
