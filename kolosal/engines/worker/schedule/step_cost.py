"""StepCost: how long a step of n tokens takes on this machine with this model, learned from the steps themselves.

Pure: durations are given, not measured. Two decisions rest on it: how many prompt tokens fit into a step of the target
time, and how many draft tokens are worth computing.
"""

from __future__ import annotations

_WEIGHT = 0.2
"""Of the newest measurement in the moving average: follows a growing context, ignores a hiccup."""

_LARGEST = 13
"""log2 of the largest step that is told apart."""


class StepCost:
    """Mean seconds of a step by its number of tokens, in buckets of powers of two, interpolated between them."""

    def __init__(self) -> None:
        self._means: list[tuple[float, float] | None] = [None] * (_LARGEST + 1)  # (tokens, seconds)

    def observe(self, n_tokens: int, seconds: float) -> None:
        """Learn from a step."""
        bucket = min(n_tokens.bit_length() - 1, _LARGEST)
        mean = self._means[bucket]
        if mean is None:
            self._means[bucket] = (n_tokens, seconds)
        else:
            seconds = min(seconds, 4 * mean[1])  # a hiccup of the machine says nothing about the model
            self._means[bucket] = (
                mean[0] + _WEIGHT * (n_tokens - mean[0]),
                mean[1] + _WEIGHT * (seconds - mean[1]),
            )

    def seconds(self, n_tokens: int) -> float | None:
        """Expected duration of a step; None before anything was observed.

        Between two observations it is interpolated, beyond them extended at the cost per token of the nearest: too much
        for larger steps, too little for none.
        """
        below = above = None
        for mean in self._means:
            if mean is None:
                continue
            if mean[0] <= n_tokens:
                below = mean
            elif above is None:
                above = mean
        if below is None:
            return None if above is None else above[1]  # fewer tokens never cost more
        if above is None or above[0] == below[0]:
            return below[1] * n_tokens / below[0]
        share = (n_tokens - below[0]) / (above[0] - below[0])
        return below[1] + share * (max(above[1], below[1]) - below[1])

    def tokens_within(self, seconds: float, *, at_most: int) -> int:
        """The largest step expected to take no longer than `seconds`; 0 where that is not known."""
        low, high = 0, at_most
        while low < high:
            middle = (low + high + 1) // 2
            expected = self.seconds(middle)
            if expected is not None and expected <= seconds:
                low = middle
            else:
                high = middle - 1
        return low
