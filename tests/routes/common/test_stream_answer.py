"""Streams whose request waits: on every surface the headers go out first, then signs of life, then the answer or its error."""

from __future__ import annotations

import asyncio

import pytest

from kolosal.engines.state import EngineState
from kolosal.errors import LoadFailed
from tests.fakes import AsgiRequest, FakeEngine, app_with, eventually, says
from tests.routes.test_error_shapes import SURFACES, Surface

STREAMS = [
    pytest.param(name, surface, id=name)
    for name, surface in SURFACES.items()
    if surface.streams or "stream" in surface.path
]
on_each = pytest.mark.parametrize(("name", "surface"), STREAMS)


def _sign_of_life(surface: Surface) -> bytes:
    """What is sent at once, where the form of the stream has something for that."""
    if surface.path.startswith("/v1/messages"):
        return b'event: ping\ndata: {"type":"ping"}\n\n'
    return b"" if surface.path.startswith(("/api/", "/chat/")) else b": loading 25%\n\n"


def _asked(surface: Surface) -> AsgiRequest:
    request = AsgiRequest(surface.path)
    request._body = surface.content(fields=surface.streams or {})
    return request


def _loading() -> FakeEngine:
    engine = FakeEngine(script=says("Hello"))
    engine.loading = asyncio.Event()
    engine.state = EngineState.LOADING
    engine.load_progress = 0.25
    return engine


@on_each
async def test_headers_go_out_while_the_model_loads(name: str, surface: Surface) -> None:
    engine, request = _loading(), _asked(surface)
    task = request.start(app_with(engine, stream_headers_after_s=0))
    await request.until(_sign_of_life(surface))
    await eventually(lambda: request.sent)
    assert (request.status, request.content) == (200, _sign_of_life(surface)), name
    engine.state = EngineState.READY
    assert engine.loading is not None
    engine.loading.set()
    await request.until(b"Hello")
    await task
    assert request.complete


@on_each
async def test_what_fails_then_is_an_event(name: str, surface: Surface) -> None:
    engine, request = _loading(), _asked(surface)
    engine.load_error = LoadFailed("no such luck")
    task = request.start(app_with(engine, stream_headers_after_s=0))
    await request.until(_sign_of_life(surface))
    await eventually(lambda: request.sent)
    assert engine.loading is not None
    engine.loading.set()
    await task
    assert (request.status, request.complete) == (200, True)
    assert b"no such luck" in request.content or surface.path == "/chat/stream", name
    assert engine.requests == []


@on_each
async def test_who_leaves_then_is_not_served(name: str, surface: Surface) -> None:
    engine, request = _loading(), _asked(surface)
    app = app_with(engine, stream_headers_after_s=0)
    task = request.start(app)
    await eventually(lambda: request.sent)
    request.leave()
    await task
    assert engine.loading is not None
    engine.loading.set()
    await asyncio.sleep(0)
    assert (engine.requests, request.status) == ([], 200), name
    assert app.state.services.admission.total == 0


@pytest.mark.parametrize(
    "surface", [pytest.param(each, id=name) for name, each in SURFACES.items() if "stream" not in each.path]
)
async def test_whole_answers_send_nothing_early(surface: Surface) -> None:
    engine = _loading()
    request = AsgiRequest(surface.path)
    request._body = surface.content()
    task = request.start(app_with(engine, stream_headers_after_s=0))
    for _ in range(50):
        await asyncio.sleep(0)
    assert request.sent == []
    request.leave()
    await task
