"""RequestAdmission: engines that get no new requests for a while, so that they fall idle; and waiting for changes of engines.

Owns who is paused, and by how many reasons. Used on the event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from kolosal.engines.memory.accounting import ManagedEngine


class Changes:
    """Wakes all who wait for a change of any engine. Take `next` before looking at what may change."""

    def __init__(self) -> None:
        self.next = asyncio.Event()
        """Set at the next change."""

    def notify(self) -> None:
        """There was a change."""
        self.next.set()
        self.next = asyncio.Event()


async def wait_for(change: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for a change, or for a time. Not asyncio's `wait_for`, which before Python 3.12 can lose a cancellation."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await change.wait()


class RequestAdmission:
    """Which engines get no new requests. Every pause has an end: whoever made it ends it."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._paused: list[ManagedEngine] = []  # more than once where several have reasons

    async def wait(self, engine: ManagedEngine) -> None:
        """Wait while an engine is paused."""
        while engine in self._paused:
            await self._changes.next.wait()

    @contextlib.contextmanager
    def paused(self, engine: ManagedEngine) -> Iterator[None]:
        """Within this, an engine is paused."""
        self.pause([engine])
        try:
            yield
        finally:
            self.resume([engine])

    def pause(self, engines: Iterable[ManagedEngine]) -> None:
        """Give these no new requests until each was resumed as often as it was paused."""
        self._paused += engines

    def resume(self, engines: Iterable[ManagedEngine]) -> None:
        """Take one pause from each. Tells nobody of engines that stay paused: a load that waits swaps its pauses often."""
        for engine in engines:
            self._paused.remove(engine)
            if engine not in self._paused:
                self._changes.notify()
