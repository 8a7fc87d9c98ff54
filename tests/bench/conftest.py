"""The stub server, in the test's loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from kolosal.bench.client import Client, Target
from tests.bench.stub_server import StubServer, stub_server


@pytest.fixture
async def stub() -> AsyncIterator[StubServer]:
    async with stub_server() as server:
        yield server


@pytest.fixture
def client(stub: StubServer) -> Client:
    return Client(Target(url=stub.url, model="stub", timeout_s=20))


@pytest.fixture
def threaded_stub() -> Iterator[StubServer]:
    """For code that runs an event loop of its own."""
    ready = threading.Event()
    found: list[StubServer] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with stub_server() as server:
            found.append(server)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
