"""WebSocket connections that take too much are dropped, and the server says why it closes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import uvicorn
import websockets
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from kolosal.http.protocol import GuardedProtocol
from kolosal.http.websocket import MAX_FRAGMENTS, GuardedWebSocket
from tests.fakes import eventually
from tests.loop_clock import LoopClock


class Echo:
    """An application that says what it hears, and notes how its connection ended."""

    def __init__(self) -> None:
        self.ended: Message | None = None
        self.floods = False
        """Whether it sends without end."""
        self.greeting = b""
        """What it sends first."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        if self.greeting:
            await send({"type": "websocket.send", "bytes": self.greeting})
        flood = asyncio.create_task(self._flood(send)) if self.floods else None
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"][:10]})
        self.ended = message
        if flood is not None:
            flood.cancel()
            await asyncio.wait((flood,))

    async def _flood(self, send: Send) -> None:
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "text": "x" * 65_536})


@contextlib.asynccontextmanager
async def serving(app: Echo, *, write_s: float = 30.0) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    class Protocol(GuardedWebSocket):
        write_deadline_s = write_s

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)

    config = uvicorn.Config(
        app, port=0, http=GuardedProtocol, ws=Protocol, ws_max_size=100_000, ws_per_message_deflate=False,
        lifespan="off", log_config=None, log_level="critical", ws_ping_interval=None,
    )  # fmt: skip
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.force_exit = True
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await eventually(lambda: not server.server_state.connections and not server.server_state.tasks)


def client(port: int) -> connect:
    return connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None)


async def closed_with(connection: ClientConnection) -> tuple[int, str]:
    await connection.wait_closed()
    assert connection.close_code is not None
    return connection.close_code, connection.close_reason or ""


async def test_messages_pass_both_ways() -> None:
    app = Echo()
    async with serving(app) as (_, port), client(port) as connection:
        await connection.send("Grüße")
        assert await connection.recv() == "Grüße"
        await connection.send(iter(["a", "b", "c"]))  # fragments
        assert await connection.recv() == "abc"
        await connection.close(1000)
        await eventually(lambda: app.ended)
    assert app.ended is not None
    assert app.ended["code"] == 1000


async def test_a_connection_lasts_longer_than_a_request_may_take_to_come() -> None:
    app, clock = Echo(), LoopClock()
    async with serving(app) as (_, port), client(port) as connection:
        await connection.send("first")
        assert await connection.recv() == "first"
        await clock.pass_(2 * max(GuardedProtocol.header_deadline_s, GuardedProtocol.body_deadline_s))
        await connection.send("last")
        assert await connection.recv() == "last"
        await connection.close(1000)
        await eventually(lambda: app.ended)


@pytest.mark.fault("H10")
async def test_a_message_that_is_too_long_is_closed_with_1009() -> None:
    app = Echo()
    async with serving(app) as (_, port), client(port) as connection:
        await connection.send("x" * 100_001)
        assert (await closed_with(connection))[0] == 1009
        await eventually(lambda: app.ended)


@pytest.mark.fault("H10")
async def test_too_many_fragments_are_closed_with_1009() -> None:
    app = Echo()
    async with serving(app) as (_, port), client(port) as connection:
        async with asyncio.timeout(20):
            with contextlib.suppress(websockets.ConnectionClosed):
                await connection.send(iter(["x", *[""] * (MAX_FRAGMENTS + 5)]))
        assert await closed_with(connection) == (1009, "too many fragments")
        await eventually(lambda: app.ended)


async def test_a_server_that_stops_says_1001() -> None:
    app = Echo()
    async with serving(app) as (server, port), client(port) as connection:
        for each in list(server.server_state.connections):
            each.shutdown()
        assert (await closed_with(connection))[0] == 1001
        await eventually(lambda: app.ended)


@contextlib.contextmanager
def raw(buffer_bytes: int = 4096) -> Iterator[socket.socket]:
    """A connection that was upgraded, and reads only what the test reads. Its buffer is small."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.setblocking(False)
        yield connection


async def upgrade(connection: socket.socket, port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    )
    await loop.sock_sendall(connection, head.encode())


@pytest.mark.fault("H10")
async def test_a_reader_that_does_not_read_is_dropped() -> None:
    app = Echo()
    app.floods = True
    async with serving(app, write_s=0.1) as (_, port):
        with raw() as connection:
            await upgrade(connection, port)
            await eventually(lambda: app.ended)


@pytest.mark.fault("H10")
async def test_a_slow_reader_that_goes_on_reading_gets_all_of_a_large_message() -> None:
    app = Echo()
    app.greeting = b"x" * (16 << 20)
    loop, clock = asyncio.get_running_loop(), LoopClock()
    async with serving(app, write_s=30) as (_, port):
        with raw(65_536) as connection:
            await upgrade(connection, port)
            n_received = n_rested_at = 0
            while n_received < len(app.greeting) and (chunk := await loop.sock_recv(connection, 65_536)):
                n_received += len(chunk)
                if n_received - n_rested_at >= 65_536:
                    n_rested_at = n_received
                    await clock.pass_(3)
    assert n_received >= len(app.greeting)


@pytest.mark.fault("H10")
async def test_who_pings_without_reading_the_answers_is_dropped() -> None:
    app = Echo()
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)
    async with serving(app) as (_, port):
        with raw() as connection:
            await upgrade(connection, port)
            loop = asyncio.get_running_loop()
            while app.ended is None:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(connection, ping * 100)
                await asyncio.sleep(0)  # sending fails without waiting once the server has dropped it


@pytest.mark.fault("H10")
@pytest.mark.parametrize("version", ["7", "abc"])
async def test_an_upgrade_that_is_none_is_refused(version: str) -> None:
    async with serving(Echo()) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: {version}\r\n\r\n"
        writer.write(head.encode())
        assert (await reader.read(12)) in (b"HTTP/1.1 400", b"HTTP/1.1 426")
        writer.close()
        await writer.wait_closed()
