"""Connections that dawdle are dropped, and others are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kolosal.http.protocol import MAX_UNWANTED_BYTES, GuardedProtocol
from tests.fakes import eventually
from tests.loop_clock import LoopClock

SHORT_S, LONG_S = 0.05, 30.0
TLS = Path(__file__).parents[1] / "tls"


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: int
    trust: ssl.SSLContext | None = None

    async def another(self) -> Connection:
        """A second one to the same server, which the test closes."""
        return await connected(self.port, self.trust)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def ask(self) -> bytes:
        """A request on this connection; the head of the answer."""
        self.writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        return await self.reader.readuntil(b"ok")

    async def dropped(self) -> bytes:
        """What came before the server dropped the connection."""
        content = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := await self.reader.read(1 << 20):
                content += chunk
        return content


async def connected(port: int, trust: ssl.SSLContext | None = None) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", port, ssl=trust), port, trust)


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    headers_s: float = LONG_S,
    body_s: float = LONG_S,
    write_s: float = LONG_S,
    linger_s: float = LONG_S,
    keep_alive_s: int = 5,
    tls: bool = False,
    max_connections: int | None = None,
    protocol: type[GuardedProtocol] | None = None,
) -> AsyncIterator[Connection]:
    class Protocol(GuardedProtocol):
        header_deadline_s, body_deadline_s, write_deadline_s = headers_s, body_s, write_s

    Protocol.linger_s = linger_s
    config = uvicorn.Config(
        app, port=0, http=protocol or Protocol, ws="none", lifespan="off", log_config=None, log_level="critical",
        limit_concurrency=max_connections, timeout_keep_alive=keep_alive_s,
        ssl_certfile=TLS / "certificate.pem" if tls else None, ssl_keyfile=TLS / "key.pem" if tls else None,
    )  # fmt: skip
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    trust = ssl.create_default_context(cafile=TLS / "certificate.pem") if tls else None
    first = await connected(port, trust)
    try:
        yield first
    finally:
        first.writer.close()
        server.force_exit = True
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await eventually(lambda: not server.server_state.connections and not server.server_state.tasks)
        with contextlib.suppress(ConnectionError):
            await first.writer.wait_closed()


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.fault("H3")
async def test_silence_is_dropped() -> None:
    async with serving(_hello, headers_s=SHORT_S) as connection:
        assert await connection.dropped() == b""


@pytest.mark.fault("H3")
async def test_headers_that_trickle_are_dropped() -> None:
    async with serving(_hello, headers_s=SHORT_S) as connection:

        async def trickle() -> None:
            for byte in b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1000:
                connection.writer.write(bytes([byte]))
                await asyncio.sleep(0.005)

        trickling = asyncio.create_task(trickle())
        assert await connection.dropped() == b""
        trickling.cancel()
        await asyncio.wait([trickling])


@pytest.mark.fault("H3")
async def test_a_body_that_trickles_is_dropped() -> None:
    async with serving(_hello, body_s=SHORT_S) as connection:
        connection.writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx")
        assert await connection.dropped() == b""


@pytest.mark.fault("H3")
async def test_a_pipelined_body_that_trickles_is_dropped() -> None:
    async with serving(_hello, body_s=SHORT_S) as connection:
        first = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
        connection.writer.write(first + b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nx")
        assert (await connection.dropped()).endswith(b"ok")


async def test_an_idle_connection_between_requests_is_kept() -> None:
    async with serving(_hello, keep_alive_s=3600) as connection:
        clock = LoopClock()
        for _ in range(2):
            connection.writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")
            assert (await connection.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await clock.pass_(2 * LONG_S)


@pytest.mark.fault("H4")
async def test_a_reader_that_does_not_read_is_dropped_and_its_handler_learns_it() -> None:
    gone = asyncio.Event()

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        chunk: Message = {"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True}
        sending = asyncio.create_task(_send_forever(send, chunk))
        assert (await receive())["type"] == "http.disconnect"
        sending.cancel()
        gone.set()

    async with serving(flood, write_s=SHORT_S) as connection:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        connection.writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.fault("H4")
async def test_the_end_of_an_answer_that_nobody_takes_is_given_up() -> None:
    """Less than a full buffer is left, so no handler waits: only the connection itself can know."""
    transports: list[asyncio.Transport] = []
    lost = asyncio.Event()

    class Protocol(GuardedProtocol):
        write_deadline_s = SHORT_S

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transports.append(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def until_something_waits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not transports[0].get_write_buffer_size():
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    async with serving(until_something_waits, protocol=Protocol) as connection:
        connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
        connection.writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.wait_for(lost.wait(), 10)


LARGE_BYTES = 16 << 20


async def _large(_scope: Scope, _receive: Receive, send: Send) -> None:
    """An answer that is a single write."""
    length = str(LARGE_BYTES).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": b"x" * LARGE_BYTES})


class SmallBuffers(GuardedProtocol):
    """The kernel holds little, so that it is the connection where an answer waits for its reader."""

    write_deadline_s = 0.5

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)


@contextlib.asynccontextmanager
async def reader(port: int, buffer_bytes: int) -> AsyncIterator[socket.socket]:
    """A client that has asked, and reads only what the test reads."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        yield client


@pytest.mark.fault("H4")
async def test_a_slow_reader_that_goes_on_reading_gets_all_of_a_large_answer() -> None:
    """Also where it takes several deadlines, and longer than a connection may be idle."""

    class Protocol(SmallBuffers):
        write_deadline_s = LONG_S

    loop, clock = asyncio.get_running_loop(), LoopClock()
    async with (
        serving(_large, protocol=Protocol, keep_alive_s=1) as connection,
        reader(connection.port, 65_536) as client,
    ):
        n_received = n_rested_at = 0
        while n_received < LARGE_BYTES and (chunk := await loop.sock_recv(client, 65_536)):
            n_received += len(chunk)
            if n_received - n_rested_at >= 65_536:
                n_rested_at = n_received
                await clock.pass_(LONG_S / 10)
    assert n_received >= LARGE_BYTES


@pytest.mark.fault("H4")
async def test_a_reader_that_takes_a_few_bytes_at_a_time_is_dropped() -> None:
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()

    class Protocol(SmallBuffers):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async with serving(_large, protocol=Protocol) as connection, reader(connection.port, 4096) as client:
        while not lost.is_set():
            assert await loop.sock_recv(client, 100)
            await asyncio.sleep(0.01)


async def _unauthorised(_scope: Scope, _receive: Receive, send: Send) -> None:
    """An answer that waits for no body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


def _post(n_bytes: int, version: bytes = b"1.1", headers: bytes = b"") -> bytes:
    length = str(n_bytes).encode()
    return (
        b"POST / HTTP/" + version + b"\r\nhost: a\r\ncontent-length: " + length + b"\r\n" + headers + b"\r\n"
    )


LONG_BYTES = 100 * MAX_UNWANTED_BYTES


def noting() -> tuple[type[GuardedProtocol], bytearray]:
    """A connection with the daemon's own deadlines, and what has come over it."""
    received = bytearray()

    class Protocol(GuardedProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            received.extend(data)

    return Protocol, received


@pytest.mark.fault("H6")
async def test_a_connection_whose_short_body_came_after_the_answer_is_kept_as_any_other() -> None:
    protocol, received = noting()
    async with serving(_unauthorised, keep_alive_s=3600, protocol=protocol) as connection:
        clock = LoopClock()
        for _ in range(2):
            connection.writer.write(_post(10))
            answer = await connection.reader.readuntil(b"\r\n\r\nno")
            assert answer.startswith(b"HTTP/1.1 401")
            assert b"connection:" not in answer
            connection.writer.write(b"x" * 10)
            await eventually(lambda: received.endswith(b"x" * 10))
            received.clear()
            await clock.pass_(2 * protocol.header_deadline_s + 2 * protocol.body_deadline_s)


async def test_a_connection_whose_short_body_came_after_the_answer_is_closed_when_idle() -> None:
    protocol, received = noting()
    async with serving(_unauthorised, keep_alive_s=5, protocol=protocol) as connection:
        connection.writer.write(_post(10))
        await connection.reader.readuntil(b"\r\n\r\nno")
        connection.writer.write(b"x" * 10)
        await eventually(lambda: received.endswith(b"x" * 10))
        await LoopClock().pass_(5)
        assert await connection.dropped() == b""


async def test_headers_that_trickle_after_such_a_body_are_dropped() -> None:
    protocol, received = noting()
    async with serving(_unauthorised, keep_alive_s=3600, protocol=protocol) as connection:
        connection.writer.write(_post(10))
        await connection.reader.readuntil(b"\r\n\r\nno")
        connection.writer.write(b"x" * 10 + b"GET / HT")
        await eventually(lambda: received.endswith(b"HT"))
        await LoopClock().pass_(protocol.header_deadline_s)
        assert await connection.dropped() == b""


@pytest.mark.fault("H6")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("head", [
    _post(LONG_BYTES), b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
], ids=["length", "chunks"])  # fmt: skip
async def test_an_answer_before_a_long_body_says_that_the_connection_ends(head: bytes, tls: bool) -> None:
    async with serving(_unauthorised, tls=tls) as connection:
        connection.writer.write(head)
        answer = await connection.reader.readuntil(b"\r\n\r\nno")
        assert answer.count(b"\r\nConnection: close\r\n") + answer.count(b"\r\nconnection: close\r\n") == 1


WITH_ITS_LAST_ANSWER = pytest.mark.parametrize("head", [
    _post(n_bytes, *rest)
    for n_bytes in (MAX_UNWANTED_BYTES, LONG_BYTES)
    for rest in ((b"1.0",), (b"1.1", b"connection: close\r\n"))
], ids=["1.0, short", "1.1, short", "1.0, long", "1.1, long"])  # fmt: skip


@pytest.mark.fault("H6")
@pytest.mark.parametrize("tls", [False, True])
@WITH_ITS_LAST_ANSWER
async def test_who_sends_on_after_its_last_answer_has_time_to_read_it(head: bytes, tls: bool) -> None:
    async with serving(_unauthorised, tls=tls) as connection:
        connection.writer.write(head)
        await connection.reader.readuntil(b"\r\n\r\nno")
        connection.writer.write(b"x" * (MAX_UNWANTED_BYTES // 2))
        with pytest.raises(TimeoutError):  # nothing tells it that nobody is there
            await asyncio.wait_for(_lost(connection), 0.2)


@pytest.mark.fault("H6")
@pytest.mark.parametrize("tls", [False, True])
@WITH_ITS_LAST_ANSWER
async def test_who_sends_on_for_longer_is_dropped(head: bytes, tls: bool) -> None:
    async with serving(_unauthorised, tls=tls, linger_s=SHORT_S) as connection:
        connection.writer.write(head)
        await _lost(connection)


async def _lost(connection: Connection) -> None:
    """Send until the connection is not there any more."""
    while not connection.writer.transport.is_closing():
        connection.writer.write(b"x")
        await asyncio.sleep(0.01)


async def _send_forever(send: Send, message: Message) -> None:
    while True:
        await send(message)
        await asyncio.sleep(0)


@pytest.mark.fault("H5")
@pytest.mark.parametrize("request_head", [b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, b"NONSENSE\r\n\r\n"])
async def test_what_is_no_request_ends_the_connection(request_head: bytes) -> None:
    async with serving(_hello) as connection:
        connection.writer.write(request_head)
        answer = await connection.dropped()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request") or not answer  # a reset can outrun the answer


@pytest.mark.fault("H5")
@pytest.mark.parametrize("rest", [
    b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"transfer-encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
    b"transfer-encoding: gzip\r\n\r\n", b"content-length: -1\r\n\r\n", b"content-length: 1\r\ncontent-length: 2\r\n\r\nx",
    b"content-length: x\r\n\r\n", b"a b: c\r\n\r\n", b"a: \x00\r\n\r\n",
])  # fmt: skip
async def test_what_is_framed_wrong_is_refused_or_dropped(rest: bytes) -> None:
    async with serving(_hello, body_s=SHORT_S) as connection:
        connection.writer.write(b"POST / HTTP/1.1\r\nhost: localhost\r\n" + rest)
        answer = await connection.dropped()
        assert answer[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5", b"") or b"connection: close" in answer.lower()


@pytest.mark.fault("H5")
@pytest.mark.parametrize("request_head", [
    b"GET /\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
])  # fmt: skip
async def test_what_is_no_http_gets_no_answer_but_an_error(request_head: bytes) -> None:
    async with serving(_hello, headers_s=SHORT_S) as connection:
        connection.writer.write(request_head)
        assert (await connection.dropped())[:12] in (b"HTTP/1.1 400", b"")


@pytest.mark.fault("H3")
async def test_200_silent_connections_are_dropped_and_a_good_one_is_answered() -> None:
    async with serving(_hello, keep_alive_s=3600) as connection:
        mute = [await connection.another() for _ in range(200)]
        assert (await connection.ask()).startswith(b"HTTP/1.1 200")
        await LoopClock().pass_(LONG_S)
        for each in mute:
            assert await each.dropped() == b""
            await each.close()
        assert (await connection.ask()).startswith(b"HTTP/1.1 200")


async def test_where_connections_are_full_the_longest_idle_one_makes_room() -> None:
    async with serving(_hello, max_connections=2) as first:
        second = await first.another()
        assert (await second.ask()).startswith(b"HTTP/1.1 200")
        assert (await first.ask()).startswith(b"HTTP/1.1 200")
        third = await first.another()
        assert (await third.ask()).startswith(b"HTTP/1.1 200")
        assert await second.dropped() == b""
        assert (await first.ask()).startswith(b"HTTP/1.1 200")
        await second.close()
        await third.close()


async def test_where_all_are_at_work_the_new_one_is_told_to_come_back() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await release.wait()
        await _hello(scope, receive, send)

    async with serving(slow, max_connections=1) as busy:
        asking = asyncio.create_task(busy.ask())
        await entered.wait()
        second = await busy.another()
        refusal = await second.dropped()
        await second.close()
        release.set()
        assert (await asking).startswith(b"HTTP/1.1 200")
        assert (await busy.ask()).startswith(b"HTTP/1.1 200")
    assert refusal.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 1\r\n" in refusal
    assert orjson.loads(refusal.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_connections"
