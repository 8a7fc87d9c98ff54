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


_CLEARLY_LESS = 0.9
"""Of another estimate: both are noisy."""


def cells_seen(start: int, count: int) -> int:
    """Cells that `count` tokens of a sequence see together, from position `start` on: each those before it, and its own."""
    return count * start + count * (count + 1) // 2


class Work(NamedTuple):
    """What a step computes."""

    n_tokens: int = 0
    n_seen: int = 0
    """Cells that each of these tokens sees, all together."""
    n_cells: int = 0
    """Cells of their sequences, up to the last of these tokens."""

    def plus(self, start: int, count: int) -> Work:
        """This, and `count` more tokens of one sequence, from position `start` on."""
        return Work(
            self.n_tokens + count, self.n_seen + cells_seen(start, count), self.n_cells + start + count
        )

    def longer(self, start: int, count: int) -> Work:
        """This, and `count` more tokens of a sequence that is in it already."""
        return Work(self.n_tokens + count, self.n_seen + cells_seen(start, count), self.n_cells + count)

    @property
    def n_attended(self) -> int:
        """Cells that attention goes through for each of these tokens, all together. In a tile it does so for all tokens with every cell
        that any of them sees, and each sequence has a part of some tile."""
        return self.n_seen if self.n_tokens < TILE_TOKENS else self.n_seen + TILE_TOKENS * self.n_cells


class _CellPrice:
    """Seconds for each cell that attention goes through, from how steps of about as many tokens differ: least squares, old ones
    forgotten. It counts as far as it explains the differences, as steps differ for other reasons too."""

    __slots__ = ("_both", "_cells", "_taken", "seconds")

    def __init__(self) -> None:
        self.seconds = self._both = self._cells = self._taken = 0.0

    def observe(self, more_cells: float, more_s: float) -> None:
        """Learn from a step with so many cells more than others, which took so much longer."""
        self._both += more_cells * more_s - _PRICE_WEIGHT * self._both
        self._cells += more_cells * more_cells - _PRICE_WEIGHT * self._cells
        self._taken += more_s * more_s - _PRICE_WEIGHT * self._taken
        if self._both > 0 and self._cells * self._taken > 0:
            explained = self._both**2 / (self._cells * self._taken)
            self.seconds = explained * self._both / self._cells
        else:
            self.seconds = 0.0


class _Mean:
    """What steps of about as many tokens took."""

    __slots__ = ("_n_attended", "_price", "_seconds", "n_tokens")

    def __init__(self, work: Work, seconds: float, price: _CellPrice) -> None:
        self.n_tokens = float(work.n_tokens)
        self._n_attended = float(work.n_attended)
        self._seconds = seconds
        self._price = price

    def observe(self, work: Work, seconds: float, tokens_s: float) -> None:
        """Learn from a step that should take `tokens_s` longer for the tokens that it has more."""
        more_cells, more_s = work.n_attended - self._n_attended, seconds - self._seconds
        if self._seconds:
            self._price.observe(more_cells / self._seconds, (more_s - tokens_s) / self._seconds)
        self.n_tokens += _WEIGHT * (work.n_tokens - self.n_tokens)
        self._n_attended += _WEIGHT * more_cells
        self._seconds += _WEIGHT * more_s

    @property
    def other_s(self) -> float:
        """Seconds of what is not attention."""
        return max(self._seconds - self._price.seconds * self._n_attended, _LEAST_SHARE * self._seconds)


class StepCost:
    """Mean seconds of a step by its number of tokens, in buckets of powers of two, interpolated between them; and what a cell costs
    that attention goes through, for steps of few tokens and of many."""

    def __init__(self) -> None:
        self._means: list[_Mean | None] = [None] * (_LARGEST + 1)
        self._few, self._many = _CellPrice(), _CellPrice()

    def observe(self, work: Work, seconds: float) -> None:
        """Learn from a step."""
        bucket = _bucket(work.n_tokens)
        mean = self._means[bucket]
        if mean is None:
            self._means[bucket] = _Mean(work, seconds, self._price(work))
        else:  # a hiccup of the machine says nothing about the model
            other_s = self._other_s(work.n_tokens) or 0.0
            expected_s = other_s + self._attention_s(work)
            mean.observe(work, min(seconds, 4 * expected_s), other_s - mean.other_s)

    def seconds(self, work: Work) -> float | None:
        """Expected duration of a step; None before anything was observed."""
        other_s = self._other_s(work.n_tokens)
        return None if other_s is None else other_s + self._attention_s(work)

    def _attention_s(self, work: Work) -> float:
        return self._price(work).seconds * work.n_attended

    def _other_s(self, n_tokens: int) -> float | None:
        """What is not attention: interpolated between two observations, and extended beyond them at the cost per token of the nearest: too
        much for larger steps, too little for none."""
        below = above = None
        for mean in self._means:
            if mean is None:
                continue
            if mean.n_tokens <= n_tokens:
                below = mean
            elif above is None:
                above = mean
        if below is None:  # fewer tokens never cost more
            return None if above is None else above.other_s
        if above is None or above.n_tokens == below.n_tokens:
            return below.other_s * n_tokens / below.n_tokens
        share = (n_tokens - below.n_tokens) / (above.n_tokens - below.n_tokens)
        return below.other_s + share * max(above.other_s - below.other_s, 0.0)

    def seconds_of_prompt(self, n_tokens: int, n_together: int) -> float:
        """What it takes to compute so many tokens of one sequence, `n_together` in a step; 0 where that is not known."""
        count = min(n_tokens, n_together)
        middle = (n_tokens - count) // 2  # where steps take as long as on average
        return n_tokens / count * (self.seconds(Work().plus(middle, count)) or 0.0)

    def tokens_within(self, seconds: float, work: Work, *, start: int, at_most: int) -> int:
        """How many tokens of one sequence, from position `start` on, may come to a step so that it is expected to take no longer than
        `seconds`; 0 where that is not known. Beside others no more than stay below a tile, where with more each is clearly dearer."""
        most_below = max(TILE_TOKENS - 1 - work.n_tokens, 0)
        few = self._most(seconds, work, start, 0, min(most_below, at_most))
        many = self._most(seconds, work, start, most_below, at_most)
        if many <= most_below:
            return few
        if few == 0 or not work.n_tokens or self._means[_bucket(work.n_tokens + few)] is None:
            return many
        few_s, many_s = ((self.seconds(work.plus(start, count)) or 0.0) / count for count in (few, many))
        return few if few_s < _CLEARLY_LESS * many_s else many

    def _most(self, seconds: float, work: Work, start: int, low: int, high: int) -> int:
        """The most of more than `low` and up to `high` tokens; `low` where not even the fewest of those are expected to be in time."""
        while low < high:
            middle = (low + high + 1) // 2
            expected = self.seconds(work.plus(start, middle))
            if expected is not None and expected <= seconds:
                low = middle
            else:
                high = middle - 1
        return low

    def _price(self, work: Work) -> _CellPrice:
        """Attention is computed another way where there are enough tokens for a tile."""
        return self._few if work.n_tokens < TILE_TOKENS else self._many


def _bucket(n_tokens: int) -> int:
    return min(n_tokens.bit_length() - 1, _LARGEST)
