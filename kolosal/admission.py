"""Admission: how many requests may be in the daemon at once, altogether and of one key.

Each engine bounds its own queue besides. What is refused is refused at once and costs nothing; the client is told when to
come back. Used on the event loop only; knows no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from kolosal.config.server import ServerSettings
from kolosal.errors import QueueFull, ServerBusy

RETRY_AFTER_S = 2
"""When a refused client may come back."""


class Admission:
    """Counts the requests that are in the daemon."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._by_key: Counter[str | None] = Counter()
        self._total = 0

    def limit(self, settings: ServerSettings) -> None:
        """Other bounds from now on. Requests that are in the daemon stay."""
        self._settings = settings

    @property
    def total(self) -> int:
        """Requests that are in the daemon now."""
        return self._total

    def enter(self, key_id: str | None) -> Place:
        """Take a place, which must be left in the end. `key_id` is None where no keys are used: then no key has a limit.

        Raises:
            ServerBusy: as many requests are in the daemon as may.
            QueueFull: as many of this key are.
        """
        limits = self._settings
        if self._total >= limits.max_requests:
            raise ServerBusy(
                f"The server has {limits.max_requests} requests running and waiting, as many as it may",
                retry_after_s=RETRY_AFTER_S,
            )
        if key_id is not None and self._by_key[key_id] >= limits.max_requests_per_key:
            raise QueueFull(
                f"This API key has {limits.max_requests_per_key} requests running and waiting, as many as it may",
                retry_after_s=RETRY_AFTER_S,
            )
        self._total += 1
        self._by_key[key_id] += 1
        return Place(partial(self._leave, key_id))

    def _leave(self, key_id: str | None) -> None:
        self._total -= 1
        self._by_key[key_id] -= 1
        if not self._by_key[key_id]:
            del self._by_key[key_id]  # or keys that are long gone would add up


class Place:
    """One request's place. `leave()` is idempotent."""

    __slots__ = ("_give_back",)

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def leave(self) -> None:
        """Give the place to others."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()
