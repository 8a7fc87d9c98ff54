"""ReaderDeadline: what was written for a client must be taken by it, be it slowly."""

from __future__ import annotations

import asyncio

WRITE_DEADLINE_S = 60.0
"""How long a reader may leave what was written for it before it is dropped."""

MIN_TAKEN_BYTES = 64 * 1024
"""What it must take in that time, where it does not take all. An answer can be a single write of many MB, which an honest
reader takes minutes for; 1 KiB/s is what the slowest of lines has, and a byte a minute would hold those MB for ever."""


class ReaderDeadline:
    """Aborts a connection whose reader takes too little. Used on the event loop.

    Only what waits here is seen: not what the kernel holds, nor, over TLS, what is already encrypted.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, deadline_s: float
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._deadline_s = deadline_s
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0
        """Bytes that waited when the timer was set."""

    def start(self) -> None:
        """Watch what waits now, if anything. While it is watched already, this changes nothing."""
        if self._timer is None:
            self._set_timer(self._transport.get_write_buffer_size())

    def stop(self) -> None:
        """Watch no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, unread: int) -> None:
        if unread:
            self._unread = unread
            self._timer = self._loop.call_later(self._deadline_s, self._check)

    def _check(self) -> None:
        self._timer = None
        unread = self._transport.get_write_buffer_size()
        if unread and self._unread - unread < MIN_TAKEN_BYTES:
            self._transport.abort()
        else:
            self._set_timer(unread)
