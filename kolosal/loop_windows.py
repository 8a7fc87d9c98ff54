"""The event loop on Windows: asyncio's own, but that a client which leaves early does not close the listening socket.

asyncio takes any error of one connection that is being accepted for an error of the server, and stops listening: whoever
connects and resets at once would leave a daemon that runs and hears nobody (python/cpython issue 93821).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE_S = 1.0
"""After an error that no connection has made, e.g. no memory for sockets."""


async def accepted(
    accept: Callable[[], Awaitable[T | OSError]],
    is_open: Callable[[], bool],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """The next connection. Those that fail while they are accepted are passed over.

    `accept` returns the error of a connection, and raises one of the listening socket; `is_open` tells whether that still is.

    Raises:
        OSError: accepting failed, and the listening socket is closed.
    """
    while True:
        try:
            found = await accept()
            wait_s = 0.0
        except OSError as exc:
            found, wait_s = exc, _PAUSE_S
        if not isinstance(found, OSError):
            return found
        if not is_open():
            raise found
        level = logging.WARNING if wait_s else logging.DEBUG
        log.log(level, "server.accept_failed", extra={"reason": str(found)})
        await pause(wait_s)


def told(finish: Callable[..., T], clean_up: Callable[[], None]) -> Callable[..., T | OSError]:
    """The same function, which cleans up after its OSError and returns it: raised where nobody waits, it would be logged."""

    def finish_or_tell(*arguments: object) -> T | OSError:
        try:
            return finish(*arguments)
        except OSError as exc:
            clean_up()
            return exc

    return finish_or_tell


if sys.platform == "win32":
    import socket
    from typing import Any

    class _Proactor(asyncio.IocpProactor):
        """asyncio's, but that `accept` passes over connections that fail."""

        _accepting: socket.socket | None = None
        """The socket of the connection that is to be accepted, while that begins."""

        def accept(self, listener: socket.socket) -> asyncio.Future[Any]:
            """A future of the next connection and its address."""
            next_one = accepted(lambda: self._accept_once(listener), lambda: listener.fileno() != -1)
            return asyncio.get_running_loop().create_task(next_one, name="accept")

        def _accept_once(self, listener: socket.socket) -> asyncio.Future[Any]:
            try:
                return super().accept(listener)
            finally:
                self._accepting = None

        def _get_accept_socket(self, family: int) -> socket.socket:
            self._accepting = super()._get_accept_socket(family)  # type: ignore[misc]
            return self._accepting

        def _register(self, ov: Any, obj: Any, callback: Callable[..., Any]) -> asyncio.Future[Any]:
            finish = callback if self._accepting is None else told(callback, self._accepting.close)
            done: asyncio.Future[Any] = super()._register(ov, obj, finish)  # type: ignore[misc]
            return done

    def new_event_loop() -> asyncio.AbstractEventLoop:
        """A loop for the daemon."""
        return asyncio.ProactorEventLoop(_Proactor())
