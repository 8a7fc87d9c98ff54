"""PrefixCache: whose KV cells a new prompt can use, of running and of finished sequences.

Pure. Owns the finished sequences whose cells are kept until they are needed, least recently used first. What vLLM calls
automatic prefix caching (https://docs.vllm.ai/en/latest/features/automatic_prefix_caching.html) and SGLang does with a radix
tree (RadixAttention, https://arxiv.org/abs/2312.07104). Matching is by exact tokens: every candidate is compared, which for
some dozens takes microseconds, so no tree is needed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.schedule.sequence import Sequence

_MIN_HIT_TOKENS = 64
"""A common prefix of fewer tokens is worth nothing: every prompt of a chat template has some."""

_MAX_GHOSTS = 64
"""Evicted sequences whose tokens are remembered: ghost entries, as of the ARC cache (Megiddo and Modha, FAST 2003)."""

_FIRST_HIT_RATE = 0.5
_MIN_HIT_RATE = 0.25
"""Share of new prompts that must find use for finished sequences, so that these are kept."""

_FIRST_REUSE_STEPS = 64.0
_MAX_AGE_IN_REUSES = 8
"""Finished sequences are kept for this many times the steps it lately took until a prompt had use for one."""

_SUPERSEDED = 0.8
"""A newcomer that shares this much of a finished sequence is its next turn, or has the same beginning and can serve as well."""

_WEIGHT = 0.25
"""Of the newest prompt in the moving average of the hit rate: three in a row that found nothing end the keeping, one that
would have begins it again."""


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
    step: int
    """When it ended."""


class PrefixCache:
    """Finished sequences by sequence id, and the search for the longest common prefix.

    Cells that are kept are not free of charge: llama.cpp's attention walks over all of them in every step (measured: 8 to
    15 % of the speed of a small model). So they are kept while new prompts find use for them, and for as many steps as it
    lately took until they did, several times over. Of evicted ones only the tokens are remembered, to notice when keeping
    them would have paid. Steps and not seconds count: an idle engine keeps what it has.
    """

    def __init__(self, reuse: Reuse) -> None:
        self.reuse = reuse
        self._finished: OrderedDict[int, _Finished] = OrderedDict()  # least recently used first
        self._ghosts: deque[_Finished] = deque(maxlen=_MAX_GHOSTS)
        self._hit_rate = _FIRST_HIT_RATE
        self._reuse_steps = _FIRST_REUSE_STEPS
        self._step = 0

    @property
    def slots(self) -> tuple[int, ...]:
        """Sequence ids held for finished sequences, least recently used first."""
        return tuple(self._finished)

    @property
    def pays(self) -> bool:
        """Whether enough of the latest prompts found use for finished sequences."""
        return self._hit_rate >= _MIN_HIT_RATE

    def keep(self, slot: int, sequence: Sequence) -> bool:
        """Take over the cells of a sequence that ended; False when they are of no use and should be released."""
        if self.reuse is Reuse.NONE or not sequence.use_cache or sequence.n_computed == 0:
            return False
        finished = _Finished(sequence.tokens[: sequence.n_computed], sequence.cache_scope, self._step)
        if not self.pays:
            self._ghosts.append(finished)
            return False
        self._finished[slot] = finished
        return True

    def remove(self, slot: int) -> None:
        """Take out a finished sequence: its sequence id goes on as a running one, or is released."""
        self._ghosts.append(self._finished.pop(slot))

    def observe(self, sequence: Sequence, n_matched: int) -> None:
        """Learn from a new prompt: how much of it was found, and how much of those that are evicted it would have used."""
        if self.reuse is Reuse.NONE or not sequence.use_cache:
            return
        ages = [
            self._step - other.step
            for other in (*self._finished.values(), *self._ghosts)
            if other.scope == sequence.cache_scope
            and common_prefix(sequence.tokens, other.tokens, _MIN_HIT_TOKENS) >= _MIN_HIT_TOKENS
        ]
        if ages:
            self._reuse_steps += _WEIGHT * (min(ages) - self._reuse_steps)
        found = bool(ages) or n_matched >= _MIN_HIT_TOKENS
        if not found and not self._finished and not self._ghosts:
            return  # there was nothing to be found, so it says nothing
        self._hit_rate += _WEIGHT * (found - self._hit_rate)

    def touch(self, slot: int) -> None:
        """Note that a finished sequence was of use."""
        if slot in self._finished:
            self._finished[slot] = replace(self._finished[slot], step=self._step)
            self._finished.move_to_end(slot)

    def tick(self) -> None:
        """Note that a step is taken."""
        self._step += 1

    @property
    def expired(self) -> int | None:
        """The sequence id of a finished sequence that nobody had use for in time, if there is one."""
        slot = next(iter(self._finished), None)
        if slot is None:
            return None
        age = self._step - self._finished[slot].step
        return None if self.pays and age <= _MAX_AGE_IN_REUSES * self._reuse_steps else slot

    def is_superseded(self, slot: int, n_shared: int) -> bool:
        """Whether a newcomer that shares so many cells of a finished sequence makes keeping that one pointless."""
        finished = self._finished.get(slot)
        return finished is not None and n_shared >= _SUPERSEDED * len(finished.tokens)

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
