"""GuardedWebSocket: uvicorn's WebSocket connection with the bounds it does not have.

uvicorn bounds the size of a message and pings its client, but waits for ever for a reader that does not read, and lets one
message consist of any number of fragments. Here such a client is dropped, which the endpoint sees as a disconnect.
"""

from __future__ import annotations

from asyncio import BaseTransport

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from kolosal.http.reader import WRITE_DEADLINE_S, ReaderDeadline

PING_INTERVAL_S = 20.0
"""How often a client is asked whether it is still there."""

PING_TIMEOUT_S = 20.0
"""How long it may take to say so."""

MAX_FRAGMENTS = 1024
"""Fragments of one message; each has a price of its own, also an empty one."""

MAX_UNREAD_BYTES = 1024 * 1024
"""Bytes that may wait for a reader: answers to its pings are written without waiting for it."""

GOING_AWAY = 1001
TOO_BIG = 1009


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One connection. Used by uvicorn, on the event loop."""

    write_deadline_s = WRITE_DEADLINE_S

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._reader = ReaderDeadline(self.loop, self.transport, self.write_deadline_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.stop()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self._close(TOO_BIG, "too many fragments")

    def handle_ping(self) -> None:
        super().handle_ping()
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()

    def shutdown(self) -> None:
        """The server stops: 1001 is what browsers and clients know for that."""
        if self.handshake_complete and not self.close_sent:
            self.stop_keepalive()
            self._close(GOING_AWAY, "the server is stopping")
        else:
            super().shutdown()

    def _close(self, code: int, reason: str) -> None:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
