"""Speculation by prompt lookup: guess the next tokens from what the sequence itself already said.

When the last few tokens occurred before, what followed them then is a guess of what follows now. Guesses are computed in
the same step as the next token and kept as far as sampling agrees, so the text is the same with and without.

Pure: tokens in, guesses out. How long a guess may be is decided from its chance and the cost of a larger step, so that
guessing costs next to nothing where it does not help.
"""

from __future__ import annotations

from array import array

from kolosal.engines.worker.stepcost import StepCost

MAX_DRAFT = 64
"""Guessed tokens in one step at most."""

_KEY = 3
"""Tokens that must have occurred before in the same order."""

_WIDTH = array("i").itemsize

_FIRST_DRAFT = 2
"""Length of the first guess after a wrong one: it costs little, and right ones grow quickly."""

_PRIOR = 0.75
"""Chance that a guessed token is right, before any was checked."""

_WEIGHT = 0.25
"""Of the newest check in the moving average of that chance."""

_MIN_GAIN = 1.05
"""A guess must promise this much more speed than none: the estimate is noisy, and none costs nothing."""

_MAX_PAUSE = 64
"""Steps without a guess after guesses kept failing, at most; then one short guess finds out whether that changed."""


class PromptLookup:
    """The guesses of one sequence. `extend` must see every token once, in order."""

    __slots__ = ("_chance", "_data", "_pause", "_paused", "_ramp")

    def __init__(self, tokens: list[int]) -> None:
        self._data = bytearray()  # four bytes a token: searching it needs no index and no object per token
        self._chance = _PRIOR
        self._pause = 1  # steps to stay quiet after the next failure
        self._paused = 0
        self._ramp = _FIRST_DRAFT  # longest guess until this one was right
        self.extend(tokens)

    def extend(self, tokens: list[int]) -> None:
        """Add tokens of the sequence."""
        self._data += array("i", tokens).tobytes()

    def guess(self, limit: int) -> list[int]:
        """Up to `limit` tokens that may follow; none when the last ones are new."""
        data = self._data
        key = data[-_KEY * _WIDTH :]
        at = data.rfind(key, 0, len(data) - _WIDTH)
        while at > 0 and at % _WIDTH:  # found across the border of two tokens
            at = data.rfind(key, 0, at + len(key) - 1)
        if at < 0 or limit <= 0 or len(key) < _KEY * _WIDTH:
            return []
        start = at + len(key)
        return array("i", bytes(data[start : start + limit * _WIDTH])).tolist()

    def best_length(self, cost: StepCost, n_tokens: int, n_sequences: int) -> int:
        """How many tokens to guess in a step that has `n_tokens` without them, for `n_sequences` sequences."""
        if self._paused:
            self._paused -= 1
            return 0
        base = cost.seconds(n_tokens)
        if base is None:
            return 0
        best, best_speed = 0, _MIN_GAIN * n_sequences / base
        expected, chance = float(n_sequences), 1.0
        for length in range(1, self._ramp + 1):
            chance *= self._chance
            expected += chance
            if length & (length - 1) and length != self._ramp:
                continue  # powers of two are close enough to the best
            seconds = cost.seconds(n_tokens + length)
            if seconds is not None and expected / seconds > best_speed:
                best, best_speed = length, expected / seconds
        return best

    def checked(self, guessed: int, right: int) -> None:
        """Learn how many of the guessed tokens were right."""
        for _ in range(right):
            self._chance += _WEIGHT * (1 - self._chance)
        if right == guessed:
            self._ramp = min(4 * self._ramp, MAX_DRAFT)
            self._pause = 1
            return
        self._chance += _WEIGHT * (0 - self._chance)
        self._ramp = max(_FIRST_DRAFT, right)
        if not right:
            self._chance = max(self._chance, _PRIOR)  # the pause keeps count of failures from here on
            self._paused = self._pause
            self._pause = min(2 * self._pause, _MAX_PAUSE)
