"""Speculative decoding: draft the next tokens and compute them along with the next token, which verifies them.

Leviathan, Kalman and Matias 2023 (https://arxiv.org/abs/2211.17192), as Hugging Face's assisted generation does it: draft tokens
are sampled one by one as if there were none and accepted while they are what sampling chose, so the text is the same with and
without. Drafts come from sources: `PromptLookup` copies what followed the last tokens before, a draft model
(`llamacpp/draft.py`) computes them. How long a draft may be is decided from the estimated acceptance and from what a larger
step costs, so that drafting costs next to nothing where it does not help.

Pure but for what a source does.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Seq
from typing import Protocol

from kolosal.engines.worker.schedule.step_cost import StepCost, Work

MAX_DRAFT_TOKENS = 63
"""Draft tokens of one sequence in one step at most: 64 with the one before them, from where on llama.cpp's attention on a CPU
is cheaper per token (measured: 4.2 ms instead of 4.9 at a context of 500)."""

_NGRAMS = (3, 6, 12, 24)
"""Lengths of the end, in tokens, that is looked for in the tokens before it: the longest one found counts."""

_SEARCHED = 2
"""Of the tokens that agreed: as many are no sign, because a place where they do was searched for (measured: 2.2 tokens accepted after 3 that
matched, 3.8 after 6, 11 after 12, in stories of SmolLM2)."""

_TOKEN_BYTES = array("i").itemsize

_PRIOR_RATE = 0.75
"""Acceptance rate of a draft token before any was verified: of one for which three tokens before it matched."""

_WEIGHT = 0.25
"""Of the newest verification in the moving average of that rate."""

_MIN_GAIN = 1.05
"""A draft must promise this much more speed than none: the estimate is noisy, and none costs nothing."""

_MAX_PAUSE_STEPS = 64
"""Steps without a draft after drafts kept being rejected, at most; then a short one finds out whether that changed."""


class DraftSource(Protocol):
    """Where the drafts of one sequence come from."""

    @property
    def seconds_per_token(self) -> float:
        """What drafting a token costs beside verifying it; 0 where that is nothing."""

    def extend(self, tokens: list[int]) -> None:
        """See tokens of the sequence: each once, in order."""

    def match_length(self) -> int:
        """How many of the last tokens the next draft is based on; 0 where that is not known."""

    def draft(self, limit: int) -> list[int]:
        """Up to `limit` tokens, at least 1, that may follow; none where it has no idea."""

    def close(self) -> None:
        """Free what it holds. Idempotent."""


class PromptLookup:
    """Drafts what followed the last few tokens when they occurred before.

    Prompt lookup decoding, by Apoorv Saxena 2023 (https://github.com/apoorvumang/prompt-lookup-decoding); vLLM's n-gram
    speculation. Prompt and generated tokens are searched alike.
    """

    __slots__ = ("_at", "_data")

    @property
    def seconds_per_token(self) -> float:
        return 0.0

    def __init__(self) -> None:
        self._data = bytearray()  # four bytes a token: searching it needs no index and no object per token
        self._at = -1  # of the next draft, in bytes; set by `match_length`

    def extend(self, tokens: list[int]) -> None:
        self._data += array("i", tokens).tobytes()

    def match_length(self) -> int:
        self._at, matched = -1, 0
        for length in _NGRAMS:
            at = self._find(length * _TOKEN_BYTES)
            if at < 0:
                break
            self._at, matched = at, length
        return matched

    def draft(self, limit: int) -> list[int]:
        if self._at < 0:
            return []
        return array("i", bytes(self._data[self._at : self._at + limit * _TOKEN_BYTES])).tolist()

    def _find(self, size: int) -> int:
        """Where the last `size` bytes stood before, for the last time: the end of that; -1 for nowhere."""
        data = self._data
        if len(data) < size:
            return -1
        key = data[-size:]
        at = data.rfind(key, 0, len(data) - _TOKEN_BYTES)
        while at > 0 and at % _TOKEN_BYTES:  # found across the border of two tokens
            at = data.rfind(key, 0, at + size - 1)
        return -1 if at < 0 else at + size

    def close(self) -> None:
        """Holds nothing."""


class AcceptanceEstimate:
    """How many draft tokens of one source were accepted for one sequence, and how long a draft should be."""

    __slots__ = ("_pause", "_paused", "_rate", "_streak")

    def __init__(self) -> None:
        self._rate = _PRIOR_RATE
        self._pause = 1  # steps without a draft after the next one that is rejected as a whole
        self._paused = 0
        self._streak = 0  # draft tokens accepted since one was rejected

    def is_paused(self) -> bool:
        """Whether not to draft in this step, because drafts were rejected before. Counts the step."""
        self._paused = max(self._paused - 1, -1)
        return self._paused >= 0

    def best_length(
        self,
        cost: StepCost,
        work: Work,
        start: int,
        n_expected: float,
        *,
        match_length: int = 0,
        seconds_per_token: float = 0.0,
    ) -> tuple[int, float]:
        """How many tokens to draft, from position `start` on, in a step that without them has this work and gives `n_expected` tokens
        to all sequences together; and how many of the draft are expected to be kept.

        The length whose expected tokens per second are the most. After `n` tokens that agreed the next one fails once in
        `n + 2` times (Laplace's rule of succession): a draft that matched more tokens is rejected more rarely by that, and
        may be longer. The first of those say little, as the place was found by them.
        """
        base = cost.seconds(work)
        if base is None:
            return 0, 0.0
        agreed = max(match_length, self._streak)
        longest = min(MAX_DRAFT_TOKENS, 4 * agreed + 2)
        best, kept, best_speed = 0, 0.0, _MIN_GAIN * n_expected / base
        expected, accepted = 0.0, 1.0
        for length in range(1, longest + 1):
            accepted *= 1 - (1 - self._rate) * 4 / max(4, agreed - _SEARCHED + length)
            expected += accepted
            if length & (length - 1) and length != longest:
                continue  # powers of two are close enough to the best
            seconds = cost.seconds(work.longer(start, length))
            if seconds is None:
                continue
            speed = (n_expected + expected) / (seconds + length * seconds_per_token)
            if speed > best_speed:
                best, kept, best_speed = length, expected, speed
        return best, kept

    def observe(self, n_drafted: int, n_accepted: int) -> None:
        """Learn how many of the draft tokens were accepted."""
        for _ in range(n_accepted):
            self._rate += _WEIGHT * (1 - self._rate)
        if n_accepted == n_drafted:
            self._streak += n_accepted
            self._pause = 1
            return
        self._streak = n_accepted
        self._rate += _WEIGHT * (0 - self._rate)
        if not n_accepted:
            self._rate = max(self._rate, _PRIOR_RATE)  # the pause keeps count of failures from here on
            self._paused = self._pause
            self._pause = min(2 * self._pause, _MAX_PAUSE_STEPS)


class Speculator:
    """Drafts for one sequence: of the first source that has one, as long as it pays."""

    __slots__ = ("_drafted_from", "_estimates", "_sources")

    def __init__(self, sources: Seq[DraftSource], tokens: list[int]) -> None:
        self._sources = tuple(sources)
        self._estimates = tuple(AcceptanceEstimate() for _ in sources)
        self._drafted_from: AcceptanceEstimate | None = None
        self.extend(tokens)

    def extend(self, tokens: list[int]) -> None:
        """See tokens of the sequence: each once, in order."""
        for source in self._sources:
            source.extend(tokens)

    def draft(
        self, cost: StepCost, work: Work, start: int, n_expected: float, room: int
    ) -> tuple[list[int], float]:
        """Draft tokens, at most `room`, from position `start` on, for a step that without them has this work and gives `n_expected`
        to all sequences; and how many of them are expected to be kept."""
        for source, estimate in zip(self._sources, self._estimates, strict=True):
            if estimate.is_paused():
                continue
            length, kept = estimate.best_length(
                cost,
                work,
                start,
                n_expected,
                match_length=source.match_length(),
                seconds_per_token=source.seconds_per_token,
            )
            allowed = min(length, room)
            draft = source.draft(allowed) if allowed > 0 else []
            if draft:
                self._drafted_from = estimate
                return draft, kept * len(draft) / length
        return [], 0.0

    def observe(self, n_drafted: int, n_accepted: int) -> None:
        """Learn how many tokens of the last draft were accepted."""
        if self._drafted_from is not None:
            self._drafted_from.observe(n_drafted, n_accepted)

    def close(self) -> None:
        """Free what the sources hold. Idempotent."""
        for source in self._sources:
            source.close()
