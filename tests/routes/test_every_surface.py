"""What holds on every path that has text made or vectors, whatever its dialect."""

from __future__ import annotations

import asyncio

import pytest

from kolosal.engines.state import EngineState
from kolosal.schema import TokenDelta
from tests.fakes import AsgiRequest, FakeEngine, app_with, http_client, says
from tests.routes.test_error_shapes import SURFACES, Surface, every_surface

GENERATING = [
    pytest.param(surface, fields, id=f"{name}{', streaming' if fields else ''}")
    for name, surface in SURFACES.items() if not surface.path.endswith(("/embeddings", "/embed"))
    for fields in ({}, *([surface.streams] if surface.streams else []))
]  # fmt: skip
"""Whole answers and streams, where what asks for one is a field."""


def asked(surface: Surface, **fields: object) -> AsgiRequest:
    request = AsgiRequest(surface.path)
    request._body = surface.content(fields=fields)
    return request


@every_surface
async def test_a_configured_default_engine_stands_in_for_the_model(surface: Surface) -> None:
    other, default = FakeEngine("other"), FakeEngine("fake", says("a"))
    async with http_client(app_with(other, default, default_engine="fake")) as client:
        response = await client.post(surface.path, content=surface.content(None))
    assert response.status_code == 200
    assert default.requests or default.calls
    assert response.text.count('"model":') == response.text.count('"model":"fake"')
    assert (other.requests, other.calls) == ([], [])


@every_surface
async def test_the_only_engine_or_the_only_loaded_one_stands_in_too(surface: Surface) -> None:
    other, only = FakeEngine("other"), FakeEngine("fake", says("a"))
    other.state = EngineState.UNLOADED
    for engines in ([only], [only, other]):
        async with http_client(app_with(*engines)) as client:
            response = await client.post(surface.path, content=surface.content(None))
        assert response.status_code == 200
        assert (other.requests, other.calls) == ([], [])


@every_surface
@pytest.mark.parametrize("name", ["fake:latest", "Fake", " fake ", "FAKE:latest"])
async def test_latest_name(surface: Surface, name: str) -> None:
    engine = FakeEngine("fake", says("a"))
    async with http_client(app_with(FakeEngine("other"), engine)) as client:
        response = await client.post(surface.path, content=surface.content(name))
    assert response.status_code == 200
    assert engine.requests or engine.calls


@every_surface
async def test_a_name_may_hold_slashes(surface: Surface) -> None:
    engine = FakeEngine("org/fake", says("a"))
    async with http_client(app_with(engine)) as client:
        await client.post(surface.path, content=surface.content("fake"))
        assert (engine.requests, engine.calls) == ([], [])
        assert (await client.post(surface.path, content=surface.content("org/fake"))).status_code == 200
    assert engine.requests or engine.calls


@pytest.mark.parametrize(("surface", "fields"), GENERATING)
async def test_leaving_before_the_first_event_aborts(surface: Surface, fields: dict[str, object]) -> None:
    engine, request = FakeEngine(), asked(surface, **fields)
    task = request.start(app_with(engine))
    await engine.submitted.wait()
    request.leave()
    await task
    assert engine.aborted == [0]
    assert request.status == 499


@pytest.mark.parametrize(("surface", "fields"), GENERATING)
async def test_leaving_while_it_generates_aborts(surface: Surface, fields: dict[str, object]) -> None:
    engine, request = FakeEngine(), asked(surface, **fields)
    task = request.start(app_with(engine))
    await engine.submitted.wait()
    engine.streams[0].put(TokenDelta("Hel"))
    if fields or "stream" in surface.path:
        await request.until(b"Hel")
    request.leave()
    await task
    assert engine.aborted == [0]


@pytest.mark.parametrize(("surface", "fields"), GENERATING)
async def test_accel_buffering(surface: Surface, fields: dict[str, object]) -> None:
    async with http_client(app_with(FakeEngine(script=says("a")))) as client:
        answer = await client.post(surface.path, content=surface.content(fields=fields))
    streams = bool(fields) or "stream" in surface.path
    assert answer.headers.get("x-accel-buffering") == ("no" if streams else None)


@every_surface
async def test_leaving_while_the_model_loads_asks_nothing_of_it(surface: Surface) -> None:
    engine, request = FakeEngine(), asked(surface)
    engine.loading = asyncio.Event()
    task = request.start(app_with(engine))
    request.leave()
    await task
    assert (engine.requests, engine.calls) == ([], [])


@pytest.mark.parametrize(("surface", "fields"), GENERATING)
async def test_what_has_ended_is_not_aborted(surface: Surface, fields: dict[str, object]) -> None:
    engine, request = FakeEngine(script=says("a")), asked(surface, **fields)
    await request.start(app_with(engine))
    assert (request.status, len(engine.requests), engine.aborted) == (200, 1, [])
