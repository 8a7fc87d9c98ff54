"""Scaler: how many replicas an engine is to have.

Pure: times are given, in seconds on a clock that never jumps back. More as soon as requests have waited for a while, fewer only
once there was no need for long: a replica that comes must load its model, one that goes loses what it holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_REPLICAS = 1024
"""Of one engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRules:
    """What the owner of an engine wants.

    Raises:
        ValueError: not 1 ≤ `min` ≤ `max` ≤ `MAX_REPLICAS`, or the thresholds leave no room between them.
    """

    min: int = 1
    max: int = 1
    up_queue_s: float = 1.0
    """Requests that wait longer than this want more replicas."""
    down_queue_s: float = 0.1
    """Where they wait less than this, there may be too many. Between the two all is well."""
    up_after_s: float = 10.0
    """How long they must have waited."""
    down_after_s: float = 300.0
    """How long there must have been too many."""

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max <= MAX_REPLICAS:
            raise ValueError(
                f"replicas: min is {self.min} and max is {self.max}, but 1 ≤ min ≤ max ≤ {MAX_REPLICAS}"
            )
        if not 0 <= self.down_queue_s < self.up_queue_s:
            raise ValueError("replicas: down_queue_s must be less than up_queue_s, and not less than 0")


FULL = 0.8
"""How busy the replicas that stay may be when one goes. Above that the next burst would bring it back."""

GROWTH = 0.5
"""How many more at once, of those there are: a burst is met in a few steps, however many there are."""


class Scaler:
    """Decides for one engine, each time it is asked."""

    def __init__(self, rules: ScalingRules) -> None:
        self.rules = rules
        self._waiting_since: float | None = None
        self._idle_since: float | None = None

    def wanted(
        self, now: float, *, replicas: int, queue_s: float, busy: float, draining: bool = False
    ) -> int:
        """How many replicas there are to be.

        `replicas` are those that are ready or get ready, without those that drain. `queue_s` is how long requests waited lately
        for a place, 0 where none came. `busy` is which share of all places is taken, from 0 to 1. `draining`: a replica
        drains, so that these figures say little; then only what is missing to `min` is added.
        """
        within = min(max(replicas, self.rules.min), self.rules.max)
        if draining or within != replicas:
            self._waiting_since = self._idle_since = None
            return max(replicas, self.rules.min) if draining else within
        self._waiting_since = _since(self._waiting_since, now, queue_s > self.rules.up_queue_s)
        spare = queue_s < self.rules.down_queue_s and busy * replicas <= FULL * (replicas - 1)
        self._idle_since = _since(self._idle_since, now, spare)
        if _lasts(self._waiting_since, now, self.rules.up_after_s):
            self._waiting_since = None  # what comes now is waited for before there is more
            return min(replicas + math.ceil(replicas * GROWTH), self.rules.max)
        if _lasts(self._idle_since, now, self.rules.down_after_s):
            self._idle_since = None
            return max(replicas - 1, self.rules.min)
        return replicas


def _since(since: float | None, now: float, holds: bool) -> float | None:
    """From when on something has held without a break."""
    if not holds:
        return None
    return now if since is None else since


def _lasts(since: float | None, now: float, for_s: float) -> bool:
    return since is not None and now - since >= for_s
