"""PrefixCache: whose KV cells a new prompt can use, of running and of finished sequences.

Pure. Owns the finished sequences whose cells are kept until they are needed, least recently used first. Matching is by
exact tokens: every candidate is compared, which for some dozens takes microseconds, so no tree is needed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.sequence import Sequence

_USEFUL_TOKENS = 64
"""A common prefix of fewer tokens is worth nothing: every prompt of a chat template has some."""

_MAX_GONE = 64
"""Finished sequences whose tokens are remembered after their cells are gone."""

_FIRST_USEFULNESS = 0.5
_LEAST_USEFULNESS = 0.25
_WEIGHT = 0.25
"""Moving average over new prompts of "found something": three in a row that did not end the keeping, one that would have
begins it again."""


@dataclass(frozen=True, slots=True)
class Match:
    """The best source of cells for a prompt."""

    slot: int | None = None
    n_cells: int = 0
    """Leading tokens whose cells are there now."""
    n_expected: int = 0
    """Leading tokens a running sequence has in common and will have computed soon; at least `n_cells`."""
    takes_over: bool = False
    """The finished sequence `slot` is a prefix of the prompt as a whole, so its sequence id can simply go on."""


@dataclass(frozen=True, slots=True)
class _Finished:
    tokens: list[int]
    scope: str


class PrefixCache:
    """Finished sequences by sequence id, and the search for the longest common prefix.

    Cells that are kept are not free of charge: llama.cpp's attention walks over all of them in every step (measured: 8 to
    15 % of the speed of a small model). So they are kept while new prompts find use for them; while they do not, only the
    tokens of finished sequences are remembered, to notice when keeping them would pay again.
    """

    def __init__(self, reuse: Reuse) -> None:
        self.reuse = reuse
        self._finished: OrderedDict[int, _Finished] = OrderedDict()  # least recently used first
        self._gone: deque[_Finished] = deque(maxlen=_MAX_GONE)
        self._usefulness = _FIRST_USEFULNESS

    @property
    def slots(self) -> tuple[int, ...]:
        """Sequence ids held for finished sequences, least recently used first."""
        return tuple(self._finished)

    @property
    def pays(self) -> bool:
        """Whether enough of the latest prompts found use for finished sequences."""
        return self._usefulness >= _LEAST_USEFULNESS

    def keep(self, slot: int, sequence: Sequence) -> bool:
        """Take over the cells of a sequence that ended; False when they are of no use and should be released."""
        if self.reuse is Reuse.NONE or not sequence.use_cache or sequence.n_computed == 0:
            return False
        finished = _Finished(sequence.tokens[: sequence.n_computed], sequence.cache_scope)
        if not self.pays:
            self._gone.append(finished)
            return False
        self._finished[slot] = finished
        return True

    def take(self, slot: int) -> None:
        """Forget a finished sequence: its sequence id goes on as a running one, or is released."""
        self._gone.append(self._finished.pop(slot))

    def learn(self, sequence: Sequence, n_matched: int) -> None:
        """Note how much of a new prompt was found, and how much of those that are gone it would have used."""
        if self.reuse is Reuse.NONE or not sequence.use_cache:
            return
        found = n_matched >= _USEFUL_TOKENS or any(
            common_prefix(sequence.tokens, gone.tokens, _USEFUL_TOKENS) >= _USEFUL_TOKENS
            for gone in self._gone
            if gone.scope == sequence.cache_scope
        )
        self._usefulness += _WEIGHT * (found - self._usefulness)

    def touch(self, slot: int) -> None:
        """Note that a finished sequence was of use."""
        if slot in self._finished:
            self._finished.move_to_end(slot)

    def match(self, sequence: Sequence, running: Iterable[Sequence]) -> Match:
        """The best source for a sequence that is about to start. At least its last token is left to be computed."""
        best = Match()
        if self.reuse is Reuse.NONE or not sequence.use_cache:
            return best
        limit = len(sequence.tokens) - 1
        for slot, finished in self._finished.items():
            if finished.scope != sequence.cache_scope:
                continue
            common = common_prefix(sequence.tokens, finished.tokens, limit)
            whole = common == len(finished.tokens)
            if common > best.n_cells and (whole or self.reuse is Reuse.PREFIX):
                best = Match(slot, common, common, takes_over=whole)
        if self.reuse is Reuse.PREFIX:
            for other in running:
                best = self._better(best, sequence, other, limit)
        return best

    @staticmethod
    def _better(best: Match, sequence: Sequence, other: Sequence, limit: int) -> Match:
        if not other.use_cache or other.cache_scope != sequence.cache_scope:
            return best
        expected = common_prefix(sequence.tokens, other.tokens, limit)
        ready = min(expected, other.n_computed)
        if ready > best.n_cells:
            best = Match(other.slot, ready, max(expected, best.n_expected))
        elif expected > best.n_expected:
            best = Match(best.slot, best.n_cells, expected, best.takes_over)
        return best


def common_prefix(a: list[int], b: list[int], limit: int) -> int:
    """Length of the common beginning of two token lists, at most `limit`."""
    limit = min(limit, len(a), len(b))
    low, step = 0, 32
    while low < limit:  # whole pieces at the speed of a memory comparison, smaller ones near the difference
        high = min(low + step, limit)
        if a[low:high] == b[low:high]:
            low, step = high, step * 2
        elif step == 1:
            break
        else:
            step = max(1, min(step, high - low) // 2)
            limit = min(limit, high)
    return low
