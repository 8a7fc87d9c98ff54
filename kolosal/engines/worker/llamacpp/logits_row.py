"""LogitsRow: log-probabilities of tokens, the logarithm of the softmax over a row of logits.

Pure numbers. They are of the logits as the model gave them, before any sampler or grammar changed them.
"""

from __future__ import annotations

import math

import numpy as np

from kolosal.engines.worker.backend import LEAST_LOGPROB

_DIGITS = 6
"""Digits after the point: what single precision is good for; more only make frames longer."""


class LogitsRow:
    """A row of logits, copied before sampling changes it. See `backend.RowLogprobs`."""

    __slots__ = ("_log_sum", "_logits", "top")

    def __init__(self, logits: np.ndarray, n_top: int) -> None:
        self._logits = logits.copy()
        highest = float(self._logits.max())
        self._log_sum = highest + math.log(float(np.exp(self._logits - highest).sum(dtype=np.float64)))
        self.top = tuple((token, self.of(token)) for token in _highest(self._logits, n_top))

    def of(self, token: int) -> float:
        return round(max(float(self._logits[token]) - self._log_sum, LEAST_LOGPROB), _DIGITS)


def _highest(logits: np.ndarray, count: int) -> list[int]:
    """The tokens of the highest logits, in order; of equal ones that with the smaller id first, as when greedy."""
    count = min(count, len(logits))
    if count < 2:  # what evaluations ask for, for every token of long prompts
        return [int(logits.argmax())][:count]
    least = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= least)
    order = np.lexsort((candidates, -logits[candidates]))
    return [int(token) for token in candidates[order[:count]]]
