"""`POST /v1/chat/completions`: a client that leaves frees its engine, whenever it does."""

from __future__ import annotations

import asyncio

import pytest

from kolosal.schema import TokenDelta
from tests.fakes import AsgiRequest, FakeEngine, app_with, says
from tests.routes.chats import HELLO, stream


@pytest.mark.parametrize("streaming", [False, True])
async def test_leaving_before_the_first_event_aborts(streaming: bool) -> None:
    engine = FakeEngine()
    request = AsgiRequest("/v1/chat/completions", HELLO | {"stream": streaming})
    task = request.start(app_with(engine))
    await engine.submitted.wait()
    request.leave()
    await task
    assert engine.aborted == [0]
    assert request.status == 499


@pytest.mark.parametrize("streaming", [False, True])
async def test_leaving_while_it_generates_aborts(streaming: bool) -> None:
    engine = FakeEngine()
    request = AsgiRequest("/v1/chat/completions", HELLO | {"stream": streaming})
    task = request.start(app_with(engine))
    await engine.submitted.wait()
    engine.streams[0].put(TokenDelta("Hel"))
    if streaming:
        await request.until(b"Hel")
    request.leave()
    await task
    assert engine.aborted == [0]


async def test_leaving_while_the_model_loads_submits_nothing() -> None:
    engine = FakeEngine()
    engine.loading = asyncio.Event()
    request = AsgiRequest("/v1/chat/completions", HELLO)
    task = request.start(app_with(engine))
    request.leave()
    await task
    assert not engine.requests


async def test_a_finished_stream_is_not_aborted() -> None:
    engine = FakeEngine(script=says("a"))
    await stream(engine)
    assert engine.aborted == []
