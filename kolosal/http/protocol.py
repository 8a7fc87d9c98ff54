"""GuardedProtocol: uvicorn's HTTP/1.1 connection with the deadlines it does not have.

uvicorn keeps a connection open for ever that sends one header byte a second, or that never reads its answer; its own
timer runs between requests only (Kludex/uvicorn#157). Three timers close that: headers, body, and an answer not taken.
h11 is the parser because it stops at 64 KiB of headers, where httptools takes 64 MiB. And uvicorn's limit of connections
answers 503 to whoever sends a request, also on a connection it has long had, and closes none: ours gives up idle ones.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from kolosal.http.reader import WRITE_DEADLINE_S, ReaderDeadline

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

WRITE_BUFFER_BYTES = 4096
"""When the write buffer is full. uvloop keeps some 700 bytes for each write that waits, and events are short: 64 KiB of them, as
usual, took 400 KiB a connection."""

MAX_UNWANTED_BYTES = 32 * 1024
"""A body that was answered before it ended is read on where it is no longer than this, so that the connection can be
used again; uvicorn reads all of any."""

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

    header_deadline_s = 20.0
    """From the connection, or the first byte of a later request, to the end of its headers."""
    body_deadline_s = 120.0
    """From the headers to the end of the body: 16 MiB at 140 KiB/s."""
    write_deadline_s = WRITE_DEADLINE_S
    linger_s = 2.0
    """How long a client has to read an answer that came before its body ended, where the connection ends with that answer:
    what it sends on to a closed one makes its system discard the answer."""

    _read_timer: asyncio.TimerHandle | None = None
    _read_state: object = None
    """What of a request was awaited when the read timer was set: one of h11's states."""
    idle_since = 0.0
    """When the last answer ended, or the connection was made, on the loop's clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._guarded, self.app = self.app, self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._reader = ReaderDeadline(self.loop, transport, self.write_deadline_s)
        self.idle_since = self.loop.time()
        self._watch_reading()
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self.conn.our_state is h11.CLOSED:  # the rest of a body, while it lingers
            return
        was_answered_early = self.conn.their_state is h11.SEND_BODY and self._has_answered
        super().data_received(data)
        if (
            self.transport.get_protocol() is not self
        ):  # it was an upgrade: a WebSocket's deadlines are its own
            return
        if was_answered_early and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._keep_alive()
        else:
            self._watch_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.idle_since = self.loop.time()
        self._reader.start()  # also less than a full buffer must be taken in time
        if self.conn.their_state is h11.SEND_BODY:  # of a pipelined request, or one that was answered early
            self._watch_reading()
            if self.conn.our_state is h11.CLOSED and not self.transport.is_closing():
                self._hang_up()
        else:  # uvicorn's own timer runs until the first byte of the next request
            self._stop_read_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_read_timer()
        self.resume_writing()
        self._retire()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_read_timer()
        self._retire()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.stop()  # it may watch the end of an earlier answer
        self._reader.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.stop()
        if self._has_answered:  # what is left then, no handler waits for
            self._reader.start()

    def _retire(self) -> None:
        """Let go of what would act on the transport later, or keep this in memory until Python looks for cycles."""
        self._reader.stop()
        self.app = self._guarded

    async def _answer(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """The application, where an answer that comes before a long body has ended says that the connection ends with it.

        h11 sees that in the headers, and no longer waits for the body.
        """

        async def send_on(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start" and self.conn.their_state is h11.SEND_BODY:
                self.cycle.transport = _Lingering(self)
                headers = list(message.get("headers", ()))
                if CLOSE_HEADER not in headers and not self._body_is_short():
                    message = {**message, "headers": [*headers, CLOSE_HEADER]}
            await send(message)

        await self._guarded(scope, receive, send_on)

    def _hang_up(self) -> None:
        """End the connection when the client had time to read its answer. Of a long body nothing more is read.

        The client is told at once that nothing more comes, so that it does not send its next request here.
        """
        if not self._body_is_short():
            self.flow.pause_reading()
        if self.transport.can_write_eof():  # not over TLS
            self.transport.write_eof()
        self.loop.call_later(self.linger_s, self.transport.abort)

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

    def _keep_alive(self) -> None:
        """Wait for the next request, as uvicorn does after an answer: the body's end has stopped that timer."""
        self._stop_read_timer()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

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


class _Lingering(asyncio.Transport):
    """What an answer that came before its body ended is written to: its end does not yet close the connection."""

    def __init__(self, protocol: GuardedProtocol) -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        """Close, unless the protocol, which learns of the answer's end right after this, will hang up."""
        protocol = self._protocol
        if not (protocol.cycle.response_complete and protocol.conn.their_state is h11.SEND_BODY):
            protocol.transport.close()
