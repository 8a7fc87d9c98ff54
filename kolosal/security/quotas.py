"""Quotas: how many requests and tokens one API key may use within a minute and within a day.

Windows are those of the clock: a minute ends with the minute, a day at midnight UTC, so that everybody can tell when a quota begins
anew. What was used is kept in memory: a restart of the daemon begins all anew. Knows nothing of HTTP. Used on the event loop
only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from kolosal.config.auth import AuthSettings
from kolosal.errors import QuotaExceeded
from kolosal.observe.report import QuotaUse
from kolosal.security.keys import ApiKey, KeyLimits

_WINDOWS = {"minute": 60, "day": 86_400}
"""Seconds of each."""

_MAX_KEYS = 2_000
"""Keys whose use is remembered, more than there can be; those of revoked ones are forgotten first."""


@dataclass(slots=True)
class _Used:
    """What a key used in one window."""

    number: int
    """Which window, counted from 1970."""
    requests: int = 0
    tokens: int = 0


class Quotas:
    """What every key has used, against what it may."""

    def __init__(self, defaults: KeyLimits, clock: Callable[[], float]) -> None:
        """`defaults` hold for keys that have no limits of their own; `clock` is Unix time."""
        self.defaults = defaults
        self._clock = clock
        self._used: dict[tuple[str, str], _Used] = {}

    def take(self, key: ApiKey) -> None:
        """Count a request.

        Raises:
            QuotaExceeded: the key has used up one of its quotas; says which, and when it begins anew.
        """
        for window in _WINDOWS:
            used = self._now(key.id, window)
            for kind, so_far in (("requests", used.requests), ("tokens", used.tokens)):
                limit = self._limit(key, kind, window)
                if limit and so_far >= limit:
                    raise self._exceeded(kind, window, limit)
        for window in _WINDOWS:
            self._now(key.id, window).requests += 1

    def spent(self, key_id: str, n_tokens: int) -> None:
        """Count tokens, of prompts and answers alike. A request that is under way goes on, also beyond its quota."""
        for window in _WINDOWS:
            self._now(key_id, window).tokens += n_tokens

    def use(self, keys: tuple[ApiKey, ...]) -> Iterator[QuotaUse]:
        """Every quota there is of these keys."""
        for key in keys:
            for window in _WINDOWS:
                used = self._now(key.id, window)
                for kind, so_far in (("requests", used.requests), ("tokens", used.tokens)):
                    if limit := self._limit(key, kind, window):
                        yield QuotaUse(key.name, kind, window, so_far, limit)

    def _now(self, key_id: str, window: str) -> _Used:
        number = int(self._clock() // _WINDOWS[window])
        used = self._used.get((key_id, window))
        if used is None or used.number != number:
            while len(self._used) >= 2 * _MAX_KEYS:
                del self._used[next(iter(self._used))]
            used = self._used[key_id, window] = _Used(number)
        return used

    def _limit(self, key: ApiKey, kind: str, window: str) -> int:
        name = f"{kind}_per_{window}"
        own = None if key.limits is None else getattr(key.limits, name)
        return int(getattr(self.defaults, name) or 0) if own is None else int(own)

    def _exceeded(self, kind: str, window: str, limit: int) -> QuotaExceeded:
        now, length = self._clock(), _WINDOWS[window]
        reset = (now // length + 1) * length
        at = datetime.fromtimestamp(reset, UTC)
        return QuotaExceeded(
            f"This API key has used its {limit} {kind} a {window}: the next {window} begins at {at:%Y-%m-%dT%H:%M:%SZ}",
            retry_after_s=max(1, math.ceil(reset - now)),
        )


def limits_of(settings: AuthSettings) -> KeyLimits:
    """What a key may use that has no limits of its own."""
    return KeyLimits(**{field.name: getattr(settings, field.name) for field in fields(KeyLimits)})
