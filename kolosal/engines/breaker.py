"""CircuitBreaker: when a worker of one engine may be started, on the real clock.

The pattern is Nygard's (M. Nygard, "Release It!", Stability Patterns: closed, open, half-open). `restart` decides, purely; this
asks it with the time of now, and waits. Used on the event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from kolosal.config.engines import EngineSettings
from kolosal.engines.restart import BreakerState, Restarts
from kolosal.errors import EngineDied

log = logging.getLogger(__name__)


class CircuitBreaker:
    """The breaker between one engine and the start of its next worker."""

    def __init__(self, engine_id: str, settings: EngineSettings, delays_s: Sequence[float]) -> None:
        """`delays_s` are the pauses before the first, the second and later restarts."""
        self._engine_id = engine_id
        self._restarts = Restarts(settings, delays_s)
        self._was_reset = asyncio.Event()

    @property
    def state(self) -> BreakerState:
        """Whether a worker may be started."""
        return self._restarts.state(time.monotonic())

    @property
    def recent_deaths(self) -> int:
        """How often a worker died, or did not get ready, within the window of the breaker."""
        return self._restarts.deaths(time.monotonic())

    @property
    def retry_after_s(self) -> int | None:
        """Seconds until a worker may be started; None where it may now."""
        return self._restarts.retry_after_s(time.monotonic())

    def started(self) -> None:
        """Note that a worker is ready."""
        self._restarts.started(time.monotonic())

    def died(self) -> None:
        """Note that a worker died, or did not get ready."""
        self._restarts.died(time.monotonic())

    def reset(self) -> None:
        """Forget how often workers died, and end the pause before the next start."""
        self._restarts.reset()
        self._was_reset.set()

    async def wait_for_start(self, last_error: str | None) -> None:
        """Wait until a worker may be started: the longer, the more often one died lately.

        Raises:
            EngineDied: the breaker is open; the message ends with `last_error`.
        """
        retry_after_s = self.retry_after_s
        if retry_after_s is not None:
            raise EngineDied(
                f"Engine '{self._engine_id}' keeps stopping and is not started again for {retry_after_s} s."
                f" {last_error}",
                retry_after_s=retry_after_s,
            )
        self._was_reset.clear()
        wait_s = self._restarts.wait_s(time.monotonic())
        if wait_s > 0:
            log.info("engine.waiting", extra={"engine_id": self._engine_id, "wait_s": round(wait_s, 3)})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._was_reset.wait(), wait_s)
