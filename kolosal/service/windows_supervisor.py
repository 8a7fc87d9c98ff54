"""The daemon as Windows' service control manager sees it: states, told again and again while they last.

Knows no pywin32: states go to a function, and requests to stop come from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum

TELL_INTERVAL_S = 2.0
WAIT_HINT_MS = 10_000
"""How long the manager waits for the next word of a service that starts or stops."""


class ServiceState(IntEnum):
    """With the numbers of winsvc.h."""

    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    RUNNING = 4

    @property
    def is_pending(self) -> bool:
        """It lasts, and the manager must be told that it does."""
        return self in (ServiceState.START_PENDING, ServiceState.STOP_PENDING)


class WindowsSupervisor:
    """Tells `report` each state as it begins, and pending ones every two seconds with a checkpoint that grows.

    `on_ready` is told the daemon's address. Use as a context manager around the daemon.
    """

    def __init__(
        self,
        report: Callable[[ServiceState, int], None],
        on_ready: Callable[[str], None],
        tell_interval_s: float = TELL_INTERVAL_S,
    ) -> None:
        self._report = report
        self._on_ready = on_ready
        self._tell_interval_s = tell_interval_s
        self._lock = threading.Lock()
        self._state = ServiceState.START_PENDING
        self._checkpoint = 0
        self._asked_to_stop = False
        self._set_stop: Callable[[], object] | None = None
        self._over = threading.Event()
        self._teller = threading.Thread(target=self._tell_pending, name="service status", daemon=True)

    def __enter__(self) -> WindowsSupervisor:
        self._enter_state(ServiceState.START_PENDING)
        self._teller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._teller.join()

    def request_stop(self) -> None:
        """From any thread, at any time: also before the daemon runs."""
        with self._lock:
            self._asked_to_stop = True
            if self._set_stop is not None:
                self._set_stop()
        self._enter_state(ServiceState.STOP_PENDING)

    def tell_again(self) -> None:
        """The manager asks how it is."""
        with self._lock:
            self._report(self._state, self._checkpoint)

    @contextlib.contextmanager
    def stop_requests(self) -> Iterator[asyncio.Event]:
        """An event that `request_stop` sets."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._set_stop = lambda: loop.call_soon_threadsafe(stop.set)
            if self._asked_to_stop:
                stop.set()
        try:
            yield stop
        finally:
            with self._lock:
                self._set_stop = None

    def ready(self, url: str) -> None:
        """It runs."""
        if not self._asked_to_stop:
            self._enter_state(ServiceState.RUNNING)
        self._on_ready(url)

    async def heartbeat(self) -> None:
        """The manager wants none."""

    def stopping(self, drain_s: float) -> None:
        """It stops, however it came to that."""
        del drain_s
        self._enter_state(ServiceState.STOP_PENDING)

    def _enter_state(self, state: ServiceState) -> None:
        with self._lock:
            if state is not self._state:
                self._checkpoint = 0
            self._state = state
            self._tell()

    def _tell_pending(self) -> None:
        while not self._over.wait(self._tell_interval_s):
            with self._lock:
                if self._state.is_pending:
                    self._tell()

    def _tell(self) -> None:
        self._checkpoint = self._checkpoint + 1 if self._state.is_pending else 0
        self._report(self._state, self._checkpoint)
