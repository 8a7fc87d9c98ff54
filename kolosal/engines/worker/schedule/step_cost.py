"""StepCost: how long a step takes on this machine with this model, learned from the steps themselves.

What a step takes depends on its tokens, and on the cells that they see: attention walks over those, and at a context of some
thousand cells takes longer than all the rest. Two prices are told apart, then. A row of logits costs no more than can be told from the
drift of a machine, and a draft token no more than another one of the same place (measured: docs/benchmarks.md), so they have none of their own.

Pure: durations are given, not measured. Decisions that rest on it: how many prompt tokens fit into a step of the target time, how
many draft tokens are worth computing, and when cells have cost what it takes to compute them again.
"""

from __future__ import annotations

from typing import NamedTuple

from kolosal.engines.worker.schedule.limits import TILE_TOKENS

_WEIGHT = 0.3
"""Of the newest measurement in the moving averages: follows the machine's speed, ignores a hiccup."""

_PRICE_WEIGHT = 0.02
"""The same for what a cell costs, which changes less than the machine."""

_LARGEST = 13
"""log2 of the largest step that is told apart."""

_LEAST_SHARE = 0.1
"""Of a step that is not attention, at least: a price that says less is an error."""


def cells_seen(start: int, count: int) -> int:
    """Cells that `count` tokens of a sequence see together, from position `start` on: each those before it, and its own."""
    return count * start + count * (count + 1) // 2


class Work(NamedTuple):
    """What a step computes."""

    n_tokens: int = 0
    n_seen: int = 0
    """Cells that each of these tokens sees, all together."""

    def plus(self, start: int, count: int) -> Work:
        """This, and `count` more tokens of one sequence, from position `start` on."""
        return Work(self.n_tokens + count, self.n_seen + cells_seen(start, count))


class _Mean:
    """What steps of about as many tokens took."""

    __slots__ = ("n_seen", "n_tokens", "seconds")

    def __init__(self, n_tokens: float, n_seen: float, seconds: float) -> None:
        self.n_tokens, self.n_seen, self.seconds = n_tokens, n_seen, seconds

    def without_attention(self, cell_s: float) -> float:
        return max(self.seconds - cell_s * self.n_seen, _LEAST_SHARE * self.seconds)


class _CellPrice:
    """Seconds for each cell that a token sees, from how steps of about as many tokens differ: least squares, old ones forgotten. It counts
    as far as it explains the differences, as steps differ for other reasons too."""

    __slots__ = ("_both", "_seen", "_taken", "seconds")

    def __init__(self) -> None:
        self.seconds = self._both = self._seen = self._taken = 0.0

    def observe(self, mean: _Mean, n_seen: float, seconds: float) -> None:
        more_seen, more_s = (n_seen - mean.n_seen) / mean.seconds, (seconds - mean.seconds) / mean.seconds
        self._both += more_seen * more_s - _PRICE_WEIGHT * self._both
        self._seen += more_seen * more_seen - _PRICE_WEIGHT * self._seen
        self._taken += more_s * more_s - _PRICE_WEIGHT * self._taken
        if self._both > 0:
            explained = self._both**2 / (self._seen * self._taken)
            self.seconds = explained * self._both / self._seen
        else:
            self.seconds = 0.0


class StepCost:
    """Mean seconds of a step by its number of tokens, in buckets of powers of two, interpolated between them; and what a cell that
    one of them sees costs, for steps of few tokens and of many."""

    def __init__(self) -> None:
        self._means: list[_Mean | None] = [None] * (_LARGEST + 1)
        self._few, self._many = _CellPrice(), _CellPrice()

    def observe(self, work: Work, seconds: float) -> None:
        """Learn from a step."""
        bucket = min(work.n_tokens.bit_length() - 1, _LARGEST)
        mean = self._means[bucket]
        if mean is None:
            self._means[bucket] = _Mean(work.n_tokens, work.n_seen, seconds)
            return
        expected = self.seconds(work) or seconds
        seconds = min(seconds, 4 * expected)  # a hiccup of the machine says nothing about the model
        self._price(work.n_tokens).observe(mean, work.n_seen, seconds)
        mean.n_tokens += _WEIGHT * (work.n_tokens - mean.n_tokens)
        mean.n_seen += _WEIGHT * (work.n_seen - mean.n_seen)
        mean.seconds += _WEIGHT * (seconds - mean.seconds)

    def seconds(self, work: Work) -> float | None:
        """Expected duration of a step; None before anything was observed.

        What is not attention is interpolated between two observations, and extended beyond them at the cost per token of the nearest: too
        much for larger steps, too little for none.
        """
        below = above = None
        for mean in self._means:
            if mean is None:
                continue
            if mean.n_tokens <= work.n_tokens:
                below = mean
            elif above is None:
                above = mean
        cell_s = self._price(work.n_tokens).seconds
        attention_s = cell_s * work.n_seen
        if below is None:  # fewer tokens never cost more
            return None if above is None else above.without_attention(cell_s) + attention_s
        least_s = below.without_attention(cell_s)
        if above is None or above.n_tokens == below.n_tokens:
            return least_s * work.n_tokens / below.n_tokens + attention_s
        share = (work.n_tokens - below.n_tokens) / (above.n_tokens - below.n_tokens)
        return least_s + share * max(above.without_attention(cell_s) - least_s, 0.0) + attention_s

    def seconds_of_prompt(self, n_tokens: int, n_together: int) -> float:
        """What it takes to compute so many tokens of one sequence, `n_together` in a step; 0 where that is not known."""
        count = min(n_tokens, n_together)
        middle = (n_tokens - count) // 2  # where steps take as long as on average
        return n_tokens / count * (self.seconds(Work().plus(middle, count)) or 0.0)

    def tokens_within(self, seconds: float, work: Work, *, start: int, at_most: int) -> int:
        """How many tokens of one sequence, from position `start` on, may come to a step so that it is expected to take no longer than
        `seconds`; 0 where that is not known."""
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            expected = self.seconds(work.plus(start, middle))
            if expected is not None and expected <= seconds:
                low = middle
            else:
                high = middle - 1
        return low

    def _price(self, n_tokens: int) -> _CellPrice:
        """Attention is computed another way where there are enough tokens for a tile."""
        return self._few if n_tokens < TILE_TOKENS else self._many
