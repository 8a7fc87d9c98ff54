"""RateLimiter: how often a connection may speak, as a token bucket (https://en.wikipedia.org/wiki/Token_bucket). Pure."""

from __future__ import annotations

BURST_S = 4.0
"""A connection that was silent may send as many messages at once as it may in this time."""


class RateLimiter:
    """Counts the messages of one connection."""

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._left = self._most
        self._counted_at = now

    def allows(self, now: float) -> bool:
        """Whether one more message may come now; counts it."""
        self._left = min(self._most, self._left + (now - self._counted_at) * self._per_s)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
