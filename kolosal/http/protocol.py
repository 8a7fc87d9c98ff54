"""GuardedProtocol: uvicorn's HTTP/1.1 connection with the deadlines it does not have.

uvicorn keeps a connection open for ever that sends one header byte a second, or that never reads its answer; its own
timer runs between requests only (Kludex/uvicorn#157). Three timers close that: headers, body, and a full write buffer.
h11 is the parser because it stops at 64 KiB of headers, where httptools takes 64 MiB. And uvicorn's limit of connections
answers 503 to whoever sends a request, also on a connection it has long had, and closes none: ours gives up idle ones.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEADER_DEADLINE_S = 20.0
"""From the connection, or the first byte of a later request, to the end of its headers."""

BODY_DEADLINE_S = 120.0
"""From the headers to the end of the body: 16 MiB at 140 KiB/s."""

WRITE_DEADLINE_S = 60.0
"""How long a reader may leave the write buffer full before it is dropped."""

WRITE_BUFFER_BYTES = 4096
"""When it is full. uvloop keeps some 700 bytes for each write that waits, and events are short: 64 KiB of them, as
usual, took 400 KiB a connection."""

MAX_UNWANTED_BYTES = 32 * 1024
"""A body that was answered before it ended is read on where it is no longer than this, so that the connection can be
used again; uvicorn reads all of any."""

LINGER_S = 2.0
"""How long a client that sends a longer one has to read its answer: the end of the connection may discard it."""

_BODY = (
    b'{"error":{"message":"The server has as many connections as it may have","type":"server_error",'
    b'"param":null,"code":"too_many_connections"}}'
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json; charset=utf-8\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
"""What a connection gets that is one too many."""


class GuardedProtocol(H11Protocol):
    """One connection. Used by uvicorn, on the event loop.

    A connection that misses a deadline is aborted, which its handler sees as a disconnect.
    """

    header_deadline_s = HEADER_DEADLINE_S
    body_deadline_s = BODY_DEADLINE_S
    write_deadline_s = WRITE_DEADLINE_S

    _read_timer: asyncio.TimerHandle | None = None
    _read_state: object = None
    """What of a request was awaited when the read timer was set: one of h11's states."""
    _write_timer: asyncio.TimerHandle | None = None
    idle_since = 0.0
    """When the last answer ended, or the connection was made, on the loop's clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self.idle_since = self.loop.time()
        self._watch_reading()
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.idle_since = self.loop.time()
        self._watch_writing()
        if self.conn.their_state is h11.SEND_BODY:  # of a pipelined request, or one that was answered early
            self._watch_reading()
            if self._has_answered and not self._body_is_short():
                self._hang_up()
        else:  # uvicorn's own timer runs until the first byte of the next request
            self._stop_read_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        self.resume_writing()
        self._stop_write_timer()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_read_timer()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()
        if self._has_answered:  # what is left then, no handler waits for
            self._watch_writing()

    def _watch_writing(self) -> None:
        """What waits to be written, also less than a full buffer at the end of an answer, must be taken in time."""
        if self._write_timer is None and self.transport.get_write_buffer_size():
            self._write_timer = self.loop.call_later(self.write_deadline_s, self._give_up_writing)

    def _give_up_writing(self) -> None:
        self._write_timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _hang_up(self) -> None:
        """Read no more, and end the connection when the client had time to read its answer.

        It is told at once that nothing more comes, so that it does not send its next request here.
        """
        self.flow.pause_reading()
        if self.transport.can_write_eof():  # not over TLS
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _body_is_short(self) -> bool:
        lengths = [int(value) for name, value in self.headers if name == b"content-length"]
        return bool(lengths) and lengths[0] <= MAX_UNWANTED_BYTES

    def _make_room(self) -> None:
        """Close the connection that has been without a request for longest; without one, this."""
        others = [each for each in self.connections if isinstance(each, GuardedProtocol) and each is not self]
        idle = [each for each in others if each.is_idle]
        if idle:
            min(idle, key=lambda each: each.idle_since).transport.close()
        else:
            self.transport.write(_REFUSAL)
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return not self.transport.is_closing() and self._has_answered

    @property
    def _has_answered(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete

    def _watch_reading(self) -> None:
        """A deadline belongs to a state and not to a byte: bytes that trickle in do not move it."""
        state = self.conn.their_state
        if state is self._read_state:
            return
        self._stop_read_timer()
        self._read_state = state
        if state is h11.IDLE:
            self._read_timer = self.loop.call_later(self.header_deadline_s, self.transport.abort)
        elif state is h11.SEND_BODY:
            self._read_timer = self.loop.call_later(self.body_deadline_s, self.transport.abort)

    def _stop_read_timer(self) -> None:
        self._read_state = None
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
