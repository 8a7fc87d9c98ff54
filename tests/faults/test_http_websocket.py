"""H10: WebSockets that send too much, ask too often, say nothing or never leave, against a daemon in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from tests.faults.sockets import MIB, closed, port_of, rss
from tests.http.test_daemon import daemon

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]

MAX_GROWTH_BYTES = 32 * MIB
"""16 MiB of a message, and the pieces that it came in."""

MAX_CONNECTIONS = 50

FAST_PINGS = """
from kolosal.http import server
server.PING_INTERVAL_S = server.PING_TIMEOUT_S = 0.3
"""


@pytest.fixture
def url() -> Iterator[str]:
    with daemon(sessions_max_message_bytes=16 * MIB, access_log=False) as (_, url):
        yield url


def session(url: str) -> str:
    """The path of a new session's WebSocket."""
    return f"/ws/{httpx.post(f'{url}/create_session', json={}).json()['session_id']}"


async def is_alive(url: str) -> bool:
    async with httpx.AsyncClient() as http:
        return (await http.get(f"{url}/health")).status_code == 200


def client(url: str, path: str) -> connect:
    return connect(
        url.replace("http", "ws") + path, compression=None, proxy=None, max_size=None, ping_interval=None
    )


async def code_of(connection: ClientConnection) -> int | None:
    await asyncio.wait_for(connection.wait_closed(), 20)
    return connection.close_code


@pytest.mark.fault("H10")
@pytest.mark.parametrize("data", ["x" * 17 * MIB, b"x" * 17 * MIB], ids=["text", "bytes"])
async def test_a_message_of_17_mib_is_closed_with_1009(data: str | bytes, seen: Seen) -> None:
    with daemon(sessions_max_message_bytes=16 * MIB, access_log=False) as (process, url):
        async with client(url, session(url)) as warm:
            await warm.send("{}")
            await warm.recv()
        before = rss(process)
        async with client(url, session(url)) as connection:
            with suppress(websockets.ConnectionClosed):
                await connection.send(data)
            assert await code_of(connection) == 1009
        growth = rss(process) - before
        assert await is_alive(url)
    assert growth < MAX_GROWTH_BYTES
    seen(f"17 MiB: 1009, RSS +{growth / MIB:.1f} MiB")


@pytest.mark.fault("H10")
async def test_pings_without_end_are_answered_in_bounded_memory(sized: Sized, seen: Seen) -> None:
    n_pings = sized(1000, 10_000)
    with daemon(access_log=False) as (process, url):
        reader, writer = await upgraded(url, session(url))
        before = peak = rss(process)
        ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)
        for _ in range(n_pings // 100):
            writer.write(ping * 100)
            await writer.drain()
            await asyncio.wait_for(reader.readexactly(100 * 127), 20)
            peak = max(peak, rss(process))
        await closed(writer)
        assert await is_alive(url)
    assert peak - before < sized(20, 5) * MIB
    seen(f"{n_pings} pings answered, RSS +{(peak - before) / MIB:.1f} MiB")


@pytest.mark.fault("H10")
async def test_who_answers_no_ping_is_dropped() -> None:
    with daemon(preamble=FAST_PINGS, access_log=False) as (_, url):
        reader, writer = await upgraded(url, session(url))
        with suppress(ConnectionError):
            content = await asyncio.wait_for(reader.read(), 20)  # to the end of the connection
            assert content.startswith(b"\x89")  # it was asked first
        await closed(writer)


@pytest.mark.fault("H10")
async def test_a_connection_that_is_half_closed_ends(url: str) -> None:
    reader, writer = await upgraded(url, session(url))
    writer.write_eof()
    with suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 20)
    await closed(writer)
    assert await is_alive(url)


@pytest.mark.fault("H10")
async def test_more_connections_than_allowed_are_told_to_come_back(sized: Sized, seen: Seen) -> None:
    n_open = sized(60, 1000)
    with daemon(sessions_max_connections=MAX_CONNECTIONS, max_connections=2000, access_log=False) as (
        process,
        url,
    ):
        path, before = session(url), rss(process)
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(client(url, path)) for _ in range(MAX_CONNECTIONS)]
            for _ in range(n_open - MAX_CONNECTIONS):
                async with client(url, path) as refused:
                    await refused.recv()
                    assert await code_of(refused) == 1013
            growth = rss(process) - before
            assert all(each.close_code is None for each in held)
        async with client(url, path) as again:  # once others have left
            await again.send("{}")
            assert "error" in str(await again.recv())
    assert growth < MAX_GROWTH_BYTES
    seen(
        f"{n_open} connections, {MAX_CONNECTIONS} of them kept, the others 1013, RSS +{growth / MIB:.1f} MiB"
    )


async def upgraded(url: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket of which only bytes are seen."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer
