"""The clock of the running event loop, which a test moves: what lasts a minute needs no waiting, and no machine is too slow for it."""

from __future__ import annotations

import asyncio


class LoopClock:
    """Moves the clock by which the loop's timers go: `call_later`, `asyncio.sleep`, `asyncio.timeout`. Not `time.monotonic`.

    Deadlines in a test with it are long, so that none passes but where the test says so.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._time, self._ahead_s = loop.time, 0.0
        loop.time = self._now  # type: ignore[method-assign]

    def _now(self) -> float:
        return self._time() + self._ahead_s

    def move(self, seconds: float) -> None:
        """So much later. What is due by then happens as soon as the loop goes on."""
        self._ahead_s += seconds

    async def pass_(self, seconds: float) -> None:
        """So much later, and what is due by then has happened."""
        self.move(seconds)
        for _ in range(3):  # the timers are seen in one turn of the loop and called in the same or the next
            await asyncio.sleep(0)
