"""Speculation: guess the next tokens and compute the guesses along with the next token.

Sampling checks guesses one by one and keeps those it would have chosen, so the text is the same with and without. Guesses
come from sources: `PromptLookup` looks up what followed the last tokens before, a draft model (`llamacpp_draft`) computes
them. How long a guess may be is decided from its chance and from what a larger step costs, so that guessing costs next to
nothing where it does not help.

Pure but for what a source does.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Seq
from typing import Protocol

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


class GuessSource(Protocol):
    """Where the guesses of one sequence come from."""

    @property
    def seconds_per_token(self) -> float:
        """What making a guess costs beside computing it; 0 where that is nothing."""

    def extend(self, tokens: list[int]) -> None:
        """See tokens of the sequence: each once, in order."""

    def guess(self, limit: int) -> list[int]:
        """Up to `limit` tokens, at least 1, that may follow; none where it has no idea."""

    def close(self) -> None:
        """Free what it holds. Idempotent."""


class PromptLookup:
    """Guesses that what followed the last few tokens when they occurred before follows again."""

    __slots__ = ("_data",)

    @property
    def seconds_per_token(self) -> float:
        return 0.0

    def __init__(self) -> None:
        self._data = bytearray()  # four bytes a token: searching it needs no index and no object per token

    def extend(self, tokens: list[int]) -> None:
        self._data += array("i", tokens).tobytes()

    def guess(self, limit: int) -> list[int]:
        data = self._data
        key = data[-_KEY * _WIDTH :]
        at = data.rfind(key, 0, len(data) - _WIDTH)
        while at > 0 and at % _WIDTH:  # found across the border of two tokens
            at = data.rfind(key, 0, at + len(key) - 1)
        if at < 0 or len(key) < _KEY * _WIDTH:
            return []
        start = at + len(key)
        return array("i", bytes(data[start : start + limit * _WIDTH])).tolist()

    def close(self) -> None:
        """Holds nothing."""


class Chances:
    """How good the guesses of one source have been for one sequence, and how long they should be."""

    __slots__ = ("_chance", "_pause", "_paused", "_ramp")

    def __init__(self) -> None:
        self._chance = _PRIOR
        self._pause = 1  # steps to stay quiet after the next failure
        self._paused = 0
        self._ramp = _FIRST_DRAFT  # longest guess until this one was right

    def best_length(
        self, cost: StepCost, n_tokens: int, n_sequences: int, *, seconds_per_token: float = 0.0
    ) -> int:
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
            if seconds is None:
                continue
            speed = expected / (seconds + length * seconds_per_token)
            if speed > best_speed:
                best, best_speed = length, speed
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


class Speculator:
    """The guesses of one sequence: the first source that has one, as long as it pays."""

    __slots__ = ("_chances", "_guessed", "_sources")

    def __init__(self, sources: Seq[GuessSource], tokens: list[int]) -> None:
        self._sources = tuple(sources)
        self._chances = tuple(Chances() for _ in sources)
        self._guessed: Chances | None = None
        self.extend(tokens)

    def extend(self, tokens: list[int]) -> None:
        """See tokens of the sequence: each once, in order."""
        for source in self._sources:
            source.extend(tokens)

    def guess(self, cost: StepCost, n_tokens: int, n_sequences: int, room: int) -> list[int]:
        """Guesses for a step that has `n_tokens` without them, for `n_sequences` sequences; at most `room`."""
        for source, chances in zip(self._sources, self._chances, strict=True):
            length = chances.best_length(
                cost, n_tokens, n_sequences, seconds_per_token=source.seconds_per_token
            )
            length = min(length, room)
            guess = source.guess(length) if length > 0 else []
            if guess:
                self._guessed = chances
                return guess
        return []

    def checked(self, guessed: int, right: int) -> None:
        """Learn how many of the last guesses were right."""
        if self._guessed is not None:
            self._guessed.checked(guessed, right)

    def close(self) -> None:
        """Free what the sources hold. Idempotent."""
        for source in self._sources:
            source.close()
