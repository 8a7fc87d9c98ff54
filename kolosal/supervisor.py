"""Who started the daemon and tells it to stop: a terminal, systemd, or Windows' service control manager.

`Supervisor` is what the daemon needs of it. `ProcessSupervisor` is all but the last: signals, and systemd's socket where there
is one. Windows' own is `service.windows_host`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from kolosal.sd_notify import notify, watchdog_interval_s

_STOP_MARGIN_S = 10.0
"""What a stop may take besides draining."""


class Supervisor(Protocol):
    """Tells the daemon to stop, and is told how it is."""

    def stop_requests(self) -> AbstractContextManager[asyncio.Event]:
        """An event of the running loop that is set when the daemon is to stop."""

    def ready(self, url: str) -> None:
        """The daemon listens."""

    async def heartbeat(self) -> None:
        """Say again and again that the event loop is alive, until cancelled; return where nobody wants to know."""

    def stopping(self, drain_s: float) -> None:
        """The daemon stops, and gives running requests so long."""


class ProcessSupervisor:
    """A process of a terminal, a script or systemd."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @contextlib.contextmanager
    def stop_requests(self) -> Iterator[asyncio.Event]:
        """The first signal sets it; the second ends the process at once; workers follow when their pipes close.

        `signal.signal` and not the loop's own handlers, which Windows does not have.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        asked = False

        def on_signal(_number: int, _frame: object) -> None:
            nonlocal asked
            if asked:
                os.write(
                    2, b"Stopped at once by a second signal\n"
                )  # a signal may interrupt a buffered write
                os._exit(1)
            asked = True
            loop.call_soon_threadsafe(stop.set)

        names = ("SIGINT", "SIGTERM", "SIGBREAK")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield stop
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def ready(self, url: str) -> None:
        """Tell systemd."""
        notify(self._environ, f"READY=1\nSTATUS=Listening on {url}")

    async def heartbeat(self) -> None:
        """Keep systemd's watchdog from restarting the daemon, where there is one."""
        interval_s = watchdog_interval_s(self._environ, os.getpid())
        while interval_s is not None:
            notify(self._environ, "WATCHDOG=1")
            await asyncio.sleep(interval_s)

    def stopping(self, drain_s: float) -> None:
        """Tell systemd, which also waits as long as that takes."""
        time_us = int((drain_s + _STOP_MARGIN_S) * 1_000_000)
        notify(self._environ, f"STOPPING=1\nEXTEND_TIMEOUT_USEC={time_us}")
