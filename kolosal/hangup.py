"""SIGHUP: a service manager's word for "read your configuration again", and a terminal's for "I am gone".

Told apart by whether the terminal that the daemon was started in is still there. Windows has no such signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator

_STREAMS = (0, 1, 2)


class Hangup:
    """The signals that came. Used on the event loop only."""

    def __init__(self) -> None:
        self._came = asyncio.Event()
        self._terminals = _terminals()

    @property
    def lost_terminal(self) -> bool:
        """Whether the terminal of the start is gone."""
        return bool(self._terminals) and not _terminals()

    def leave_terminal(self) -> None:
        """Write nowhere instead of to a terminal that is gone: Python ends with status 120 where it cannot write all that was printed."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in self._terminals:
            os.dup2(nowhere, stream)
        os.close(nowhere)

    def note(self) -> None:
        """One came."""
        self._came.set()

    async def wait(self) -> None:
        """Wait for the next one; several that come together are one."""
        await self._came.wait()
        self._came.clear()


def _terminals() -> list[int]:
    return list(filter(os.isatty, _STREAMS))


@contextlib.contextmanager
def hangups() -> Iterator[Hangup]:
    """The hang-ups while this lasts. On the main thread, on a running event loop."""
    hangup = Hangup()
    if sys.platform == "win32":
        yield hangup
        return
    loop = asyncio.get_running_loop()
    before = signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(hangup.note))
    try:
        yield hangup
    finally:
        signal.signal(signal.SIGHUP, before)
