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

from kolosal.engines.worker.schedule.step_cost import StepCost

MAX_DRAFT = 63
"""Guessed tokens in one step at most: 64 with the one before them, from where on llama.cpp's attention on a CPU is cheaper
per token (measured: 4.2 ms instead of 4.9 at a context of 500)."""

_KEYS = (3, 6, 12, 24)
"""Lengths of the end that is looked for in the tokens before it: the longest one found counts."""

_WIDTH = array("i").itemsize

_PRIOR = 0.75
"""Chance that a guessed token is right, before any was checked: of one that two tokens before it speak for."""

_WEIGHT = 0.25
"""Of the newest check in the moving average of that chance."""

_MIN_GAIN = 1.05
"""A guess must promise this much more speed than none: the estimate is noisy, and none costs nothing."""

_MAX_PAUSE = 64
"""Steps without a guess after guesses kept failing, at most; then one short guess finds out whether that changed."""


class DraftSource(Protocol):
    """Where the guesses of one sequence come from."""

    @property
    def seconds_per_token(self) -> float:
        """What making a guess costs beside computing it; 0 where that is nothing."""

    def extend(self, tokens: list[int]) -> None:
        """See tokens of the sequence: each once, in order."""

    def support(self) -> int:
        """How many of the last tokens speak for the next guess; 0 where that is not known."""

    def guess(self, limit: int) -> list[int]:
        """Up to `limit` tokens, at least 1, that may follow; none where it has no idea."""

    def close(self) -> None:
        """Free what it holds. Idempotent."""


class PromptLookup:
    """Guesses that what followed the last few tokens when they occurred before follows again."""

    __slots__ = ("_at", "_data")

    @property
    def seconds_per_token(self) -> float:
        return 0.0

    def __init__(self) -> None:
        self._data = bytearray()  # four bytes a token: searching it needs no index and no object per token
        self._at = -1  # of the next guess, in bytes; set by `support`

    def extend(self, tokens: list[int]) -> None:
        self._data += array("i", tokens).tobytes()

    def support(self) -> int:
        self._at, support = -1, 0
        for length in _KEYS:
            at = self._find(length * _WIDTH)
            if at < 0:
                break
            self._at, support = at, length
        return support

    def guess(self, limit: int) -> list[int]:
        if self._at < 0:
            return []
        return array("i", bytes(self._data[self._at : self._at + limit * _WIDTH])).tolist()

    def _find(self, size: int) -> int:
        """Where the last `size` bytes stood before, for the last time: the end of that; -1 for nowhere."""
        data = self._data
        if len(data) < size:
            return -1
        key = data[-size:]
        at = data.rfind(key, 0, len(data) - _WIDTH)
        while at > 0 and at % _WIDTH:  # found across the border of two tokens
            at = data.rfind(key, 0, at + size - 1)
        return -1 if at < 0 else at + size

    def close(self) -> None:
        """Holds nothing."""


class AcceptanceEstimate:
    """How good the guesses of one source have been for one sequence, and how long they should be."""

    __slots__ = ("_chance", "_pause", "_paused", "_streak")

    def __init__(self) -> None:
        self._chance = _PRIOR
        self._pause = 1  # steps to stay quiet after the next failure
        self._paused = 0
        self._streak = 0  # guessed tokens that were right since one was wrong

    def is_paused(self) -> bool:
        """Whether to stay quiet in this step: guesses failed before. Counts the step."""
        self._paused = max(self._paused - 1, -1)
        return self._paused >= 0

    def best_length(
        self,
        cost: StepCost,
        n_tokens: int,
        n_sequences: int,
        *,
        support: int = 0,
        seconds_per_token: float = 0.0,
    ) -> int:
        """How many tokens to guess in a step that has `n_tokens` without them, for `n_sequences` sequences.

        After `n` tokens that agreed the next one fails once in `n + 2` times (Laplace's rule of succession): a guess
        that more tokens speak for fails more rarely by that, and may be longer.
        """
        base = cost.seconds(n_tokens)
        if base is None:
            return 0
        support = max(support, self._streak)
        longest = min(MAX_DRAFT, 4 * support + 2)
        best, best_speed = 0, _MIN_GAIN * n_sequences / base
        expected, chance = float(n_sequences), 1.0
        for length in range(1, longest + 1):
            chance *= 1 - (1 - self._chance) * min(1.0, 4 / (support + 1 + length))
            expected += chance
            if length & (length - 1) and length != longest:
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
            self._streak += right
            self._pause = 1
            return
        self._streak = right
        self._chance += _WEIGHT * (0 - self._chance)
        if not right:
            self._chance = max(self._chance, _PRIOR)  # the pause keeps count of failures from here on
            self._paused = self._pause
            self._pause = min(2 * self._pause, _MAX_PAUSE)


class Speculator:
    """The guesses of one sequence: the first source that has one, as long as it pays."""

    __slots__ = ("_chances", "_guessed", "_sources")

    def __init__(self, sources: Seq[DraftSource], tokens: list[int]) -> None:
        self._sources = tuple(sources)
        self._chances = tuple(AcceptanceEstimate() for _ in sources)
        self._guessed: AcceptanceEstimate | None = None
        self.extend(tokens)

    def extend(self, tokens: list[int]) -> None:
        """See tokens of the sequence: each once, in order."""
        for source in self._sources:
            source.extend(tokens)

    def guess(self, cost: StepCost, n_tokens: int, n_sequences: int, room: int) -> list[int]:
        """Guesses for a step that has `n_tokens` without them, for `n_sequences` sequences; at most `room`."""
        for source, chances in zip(self._sources, self._chances, strict=True):
            if chances.is_paused():
                continue
            length = chances.best_length(
                cost,
                n_tokens,
                n_sequences,
                support=source.support(),
                seconds_per_token=source.seconds_per_token,
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
