"""PrefixCache: whose KV cells a new prompt can use, of running and of finished sequences.

Pure. Owns the finished sequences whose cells are kept until they are needed, least recently used first. What vLLM calls
automatic prefix caching (https://docs.vllm.ai/en/latest/features/automatic_prefix_caching.html) and SGLang does with a radix
tree (RadixAttention, https://arxiv.org/abs/2312.07104). Matching is by exact tokens: every candidate is compared, which for
some dozens takes microseconds, so no tree is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.schedule.sequence import Sequence

MIN_HIT_TOKENS = 64
"""A common prefix of fewer tokens is worth nothing: every prompt of a chat template has some."""

_SUPERSEDED = 0.8
"""A newcomer that shares this much of a finished sequence is its next turn, or has the same beginning and can serve as well."""

_SHORT = 256
"""Tokens. What has fewer is computed again in a moment."""

_MIN_PATIENCE_STEPS = 4
"""A program's next turn comes at once."""

_MAX_PATIENCE_STEPS = 4096
"""In so many steps, half a minute and more, cells cost a stream about the time it takes to compute them again (measured)."""


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
    n_shared: int = 0
    """Where memory cannot be cut: leading tokens that the prompt has in common with any other."""
    ahead: Sequence | None = None
    """The running sequence that it shares those with, if that has still to compute some of them."""


@dataclass(frozen=True, slots=True)
class _Finished:
    tokens: list[int]
    scope: str
    step: int
    """When it ended, or was last of use."""
    inflation: float
    """What the cache's was at that step."""
    returns: bool
    """It began with cells of others, or gave some: a conversation or a shared beginning, so likely to come back."""
    checkpoint: bool = False
    """It is the beginning of a prompt, kept for all that go on from there."""

    def worth(self, n_lost: int) -> float:
        """What evicting it costs, when that would lose so many cells."""
        return self.inflation + n_lost * (1 + self.returns)


class PrefixCache:
    """Finished sequences by sequence id, and the search for the longest common prefix.

    Which go first where cells run out is GreedyDual-Size (Cao and Irani, USITS 1997) with frequency: an entry is worth the
    cost of making it again for each unit of its size, more where it was of use, and what was evicted last raises the worth of
    all that come later, which is how old ones age. A prompt costs more than its tokens: attention over what is before them,
    and somebody who waits for all of it. So a token is worth as much as its sequence is long, and dozens of short requests
    that nobody continues do not push out the conversation of an agent.

    Steps and not seconds count: an idle engine keeps what it has.
    """

    def __init__(self, reuse: Reuse) -> None:
        self.reuse = reuse
        self._finished: dict[int, _Finished] = {}
        self._inflation = 0.0
        self._step = 0

    @property
    def slots(self) -> tuple[int, ...]:
        """Sequence ids held for finished sequences."""
        return tuple(self._finished)

    def keep(self, slot: int, sequence: Sequence) -> bool:
        """Take over the cells of a sequence that ended; False when they are of no use and should be released."""
        if self.reuse is Reuse.NONE or not sequence.use_cache or sequence.n_computed == 0:
            return False
        returns = (sequence.n_cached or 0) >= MIN_HIT_TOKENS
        tokens = sequence.tokens[: sequence.n_computed]
        self._finished[slot] = _Finished(tokens, sequence.cache_scope, self._step, self._inflation, returns)
        return True

    def keep_checkpoint(self, slot: int, sequence: Sequence) -> None:
        """Take over cells that are those of a running sequence as it is now."""
        tokens = sequence.tokens[: sequence.n_computed]
        self._finished[slot] = _Finished(
            tokens, sequence.cache_scope, self._step, self._inflation, returns=False, checkpoint=True
        )

    def has(self, tokens: list[int], scope: str) -> bool:
        """Whether there is a finished sequence of just these tokens."""
        return any(each.scope == scope and each.tokens == tokens for each in self._finished.values())

    def n_unique(self, slot: int) -> int:
        """Tokens of a finished sequence that no other one can serve, where each serves as a whole only."""
        finished = self._finished[slot]
        within = (
            len(each.tokens)
            for other, each in self._finished.items()
            if other != slot
            and each.scope == finished.scope
            and finished.tokens[: len(each.tokens)] == each.tokens
        )
        return len(finished.tokens) - max(within, default=0)

    def contained_in(self, tokens: list[int], scope: str) -> list[int]:
        """The finished sequences that these tokens begin with, where whoever has cells for all of them serves as well."""
        if self.reuse is not Reuse.PREFIX:
            return []
        return [
            slot
            for slot, each in self._finished.items()
            if each.scope == scope and tokens[: len(each.tokens)] == each.tokens
        ]

    def tokens(self, slot: int) -> list[int]:
        """The tokens of a finished sequence."""
        return self._finished[slot].tokens

    def scope(self, slot: int) -> str:
        """The scope of a finished sequence."""
        return self._finished[slot].scope

    def remove(self, slot: int) -> None:
        """Take out a finished sequence: its sequence id goes on as a running one."""
        del self._finished[slot]

    def evict(self, slot: int, n_lost: int) -> None:
        """Take out a finished sequence whose cells are given up."""
        self._inflation = max(self._inflation, self._finished.pop(slot).worth(n_lost))

    def cut(self, slot: int, n_cells: int) -> None:
        """Note that only the first cells of a finished sequence are left. It is worth less then, and so the next to be cut."""
        finished = self._finished[slot]
        self._finished[slot] = replace(finished, tokens=finished.tokens[:n_cells])

    def touch(self, slot: int) -> None:
        """Note that a finished sequence was of use."""
        if slot in self._finished:
            self._finished[slot] = replace(
                self._finished[slot], step=self._step, inflation=self._inflation, returns=True
            )

    def tick(self) -> None:
        """Note that a step is taken."""
        self._step += 1

    def outstayed(self, most_steps: Callable[[int], float], n_ahead: float = 0.0) -> list[int]:
        """Finished sequences that nobody had use for in time: at most `most_steps` of their number of tokens. `n_ahead`: steps that
        are certain to come, as far as long ones are concerned.

        They slow what runs for what they may save, and that is their worth: a token's is the length of its sequence.
        """
        return [
            slot
            for slot, each in self._finished.items()
            if self._step - each.step + (n_ahead if len(each.tokens) >= _SHORT else 0)
            > _patience(len(each.tokens), most_steps)
        ]

    def least_worth(self, slots: Iterable[int], n_lost: Callable[[int], int]) -> int | None:
        """Of these finished sequences the one to give up first, when `n_lost` says what giving it up would lose."""
        return min(slots, key=lambda slot: self._finished[slot].worth(n_lost(slot)), default=None)

    def is_superseded(self, slot: int, n_shared: int) -> bool:
        """Whether a newcomer that shares so many cells of a finished sequence makes keeping that one pointless."""
        finished = self._finished.get(slot)
        if finished is None or finished.checkpoint:
            return False
        return n_shared >= _SUPERSEDED * len(finished.tokens)

    def match(self, sequence: Sequence, running: Iterable[Sequence]) -> Match:
        """The best source for a sequence that is about to start. At least its last token is left to be computed."""
        best = Match()
        if self.reuse is Reuse.NONE or not sequence.use_cache:
            return best
        limit = len(sequence.tokens) - 1
        n_shared = 0
        for slot, finished in self._finished.items():
            if finished.scope != sequence.cache_scope:
                continue
            common = common_prefix(sequence.tokens, finished.tokens, limit)
            whole = common == len(finished.tokens)
            n_shared = max(n_shared, common)
            if common > best.n_cells and (whole or self.reuse is Reuse.PREFIX):
                best = Match(slot, common, common, takes_over=whole and not finished.checkpoint)
        if self.reuse is Reuse.PREFIX:
            for other in running:
                best = self._better(best, sequence, other, limit)
            return best
        best = replace(best, n_shared=n_shared)
        for other in running:
            best = self._ahead(best, sequence, other, limit)
        return best

    @staticmethod
    def _ahead(best: Match, sequence: Sequence, other: Sequence, limit: int) -> Match:
        """A match that also knows of the checkpoints that a running sequence will come to."""
        if not other.use_cache or other.cache_scope != sequence.cache_scope:
            return best
        common = common_prefix(sequence.tokens, other.tokens, limit)
        expected = max((each for each in other.checkpoints if each <= common), default=0)
        if expected > best.n_expected:
            best = replace(best, n_expected=expected)
        if common > best.n_shared:
            best = replace(best, n_shared=common, ahead=other if common > other.n_computed else None)
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


def _patience(n_tokens: int, most_steps: Callable[[int], float]) -> float:
    """Steps that a finished sequence may stay without being of use."""
    if n_tokens < _SHORT:
        return _MIN_PATIENCE_STEPS
    steps = min(n_tokens**2 // _SHORT, _MAX_PATIENCE_STEPS, most_steps(n_tokens))
    return max(steps, _MIN_PATIENCE_STEPS)


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
