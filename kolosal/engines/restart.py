"""CircuitBreaker: when a worker that died is started again: at once, later, or not for a while.

The pattern is Nygard's (M. Nygard, "Release It!", Stability Patterns), with growing pauses while it is closed. Pure: times are given,
in seconds on a clock that never jumps back. `Engine` carries the decisions out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from kolosal.config.engines import EngineSettings


class BreakerState(StrEnum):
    """Whether a worker may be started."""

    CLOSED = "closed"
    """Yes."""
    OPEN = "open"
    """No: it died too often."""
    HALF_OPEN = "half_open"
    """Once: the pause is over, and the next start decides."""


RESTART_DELAYS_S = (0.0, 1.0, 5.0, 15.0)
"""Pause before the next start, after the first death within a window, the second, and so on."""


class CircuitBreaker:
    """The deaths of one engine's workers, and what follows from them.

    `max_crashes` deaths within `crash_window_s` open the breaker, a load that fails being one, too; so do as many loads that
    fail one after the other, however long they take. An open breaker waits for `crash_window_s`.
    """

    def __init__(self, settings: EngineSettings, delays_s: Sequence[float] = RESTART_DELAYS_S) -> None:
        self._max_deaths = settings.max_crashes
        self._window_s = settings.crash_window_s
        self._delays_s = delays_s
        self._deaths: list[float] = []  # within the window, oldest first
        self._opened_at: float | None = None
        self._started_at: float | None = None
        self._failed_starts = 0  # since a worker was ready

    def started(self, now: float) -> None:
        """Note that a worker is ready. When it has lived for a whole window, whatever was wrong is over."""
        self._started_at = now
        self._failed_starts = 0

    def died(self, now: float) -> None:
        """Note that a worker ended by itself, was ended because it hung, or did not get ready."""
        on_trial = self.state(now) is BreakerState.HALF_OPEN
        if self.state(now) is BreakerState.CLOSED:
            self._opened_at = None
        self._failed_starts += self._started_at is None
        self._started_at = None
        self._deaths = [*self._recent(now), now][-self._max_deaths :]
        if on_trial or max(len(self._deaths), self._failed_starts) >= self._max_deaths:
            self._opened_at = now

    def reset(self) -> None:
        """Forget everything: somebody wants a new start."""
        self._deaths.clear()
        self._opened_at = None
        self._failed_starts = 0

    def state(self, now: float) -> BreakerState:
        """Whether a worker may be started."""
        if self._opened_at is None or self._has_survived(now):
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._opened_at + self._window_s else BreakerState.HALF_OPEN

    def deaths(self, now: float) -> int:
        """How many there were within the last window."""
        return len(self._recent(now))

    def wait_s(self, now: float) -> float:
        """Seconds until a worker may be started; 0 for now. Behind an open breaker nobody waits: see `retry_after_s`."""
        recent = self._recent(now)
        if not recent or self.state(now) is not BreakerState.CLOSED:
            return 0.0
        delay = self._delays_s[min(len(recent), len(self._delays_s)) - 1]
        return max(0.0, recent[-1] + delay - now)

    def retry_after_s(self, now: float) -> int | None:
        """Whole seconds until the breaker lets a start through; None where it does so now."""
        if self._opened_at is None or self.state(now) is not BreakerState.OPEN:
            return None
        return max(1, math.ceil(self._opened_at + self._window_s - now))

    def _has_survived(self, now: float) -> bool:
        return self._started_at is not None and now - self._started_at >= self._window_s

    def _recent(self, now: float) -> list[float]:
        return [at for at in self._deaths if now - at < self._window_s]
