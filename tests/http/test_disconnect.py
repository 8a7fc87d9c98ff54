"""Work for a client that leaves is given up."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from kolosal.errors import InvalidRequest
from kolosal.http.disconnect import unless_disconnected
from tests.fakes import AsgiRequest


async def _request() -> tuple[AsgiRequest, Request]:
    client = AsgiRequest()
    request = Request(client.scope, client.receive)
    await request.body()
    return client, request


async def test_the_result_comes_through() -> None:
    _, request = await _request()

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await unless_disconnected(request, work()) == 7


async def test_an_error_comes_through() -> None:
    _, request = await _request()

    async def work() -> None:
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        await unless_disconnected(request, work())


async def test_leaving_cancels_the_work() -> None:
    client, request = await _request()
    cancelled = asyncio.Event()

    async def work() -> None:
        client.leave()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientDisconnect):
        await unless_disconnected(request, work())
    assert cancelled.is_set()


async def test_cancelling_the_handler_cancels_the_work() -> None:
    _, request = await _request()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(unless_disconnected(request, work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
