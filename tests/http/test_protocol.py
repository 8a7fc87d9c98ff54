"""Connections that dawdle are dropped, and others are not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import orjson
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kolosal.http.protocol import GuardedProtocol
from tests.fakes import eventually

SHORT_S, LONG_S = 0.05, 30.0


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: int

    async def another(self) -> Connection:
        """A second one to the same server, which the test closes."""
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port), self.port)

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


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    *,
    headers_s: float = LONG_S,
    body_s: float = LONG_S,
    write_s: float = LONG_S,
    max_connections: int | None = None,
    protocol: type[GuardedProtocol] | None = None,
) -> AsyncIterator[Connection]:
    class Protocol(GuardedProtocol):
        header_deadline_s, body_deadline_s, write_deadline_s = headers_s, body_s, write_s

    config = uvicorn.Config(
        app, port=0, http=protocol or Protocol, ws="none", lifespan="off", log_config=None, log_level="critical",
        limit_concurrency=max_connections,
    )  # fmt: skip
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer, port)
    finally:
        writer.close()
        server.force_exit = True
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await eventually(lambda: not server.server_state.connections and not server.server_state.tasks)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


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
    async with serving(_hello, headers_s=SHORT_S, body_s=SHORT_S) as connection:
        for _ in range(2):
            connection.writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")
            assert (await connection.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2 * SHORT_S)


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
    async with serving(_hello, headers_s=10 * SHORT_S) as connection:
        mute = [await connection.another() for _ in range(200)]
        assert (await connection.ask()).startswith(b"HTTP/1.1 200")
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
