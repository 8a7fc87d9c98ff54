"""What stays in memory, and what does not."""

from __future__ import annotations

import pytest

from kolosal.engines.engine import EngineState
from kolosal.engines.stream import RequestStream
from tests.fakes import app_with, eventually, http_client, says
from tests.routes.ollama.asking import loaded_engine


async def test_an_engine_that_others_use_stays() -> None:
    engine = loaded_engine(says("a"))
    engine._streams[99] = RequestStream(lambda: None)
    async with http_client(app_with(engine)) as client:
        for body in ({"keep_alive": 0}, {"prompt": "a", "keep_alive": 0, "stream": False}):
            assert (await client.post("/api/generate", json={"model": "fake", **body})).status_code == 200
            assert engine.state is EngineState.READY


async def test_a_removed_engine_is_not_waited_for_while_it_is_used() -> None:
    engine = loaded_engine()
    stream = RequestStream(lambda: None)
    engine._streams[99] = stream
    engine._idle.clear()
    app = app_with(engine)
    async with http_client(app) as client:
        assert (await client.request("DELETE", "/api/delete", json={"model": "fake"})).status_code == 200
        assert (await client.get("/api/tags")).json() == {"models": []}
    assert engine.in_flight == 1
    engine._forget(99)
    await eventually(lambda: not app.state.services.registry._draining)


@pytest.mark.parametrize("state", [EngineState.UNLOADED, EngineState.LOADING])
async def test_what_is_not_loaded_is_not_freed(state: EngineState) -> None:
    engine = loaded_engine()
    engine.state = state
    async with http_client(app_with(engine)) as client:
        answer = (await client.post("/api/chat", json={"model": "fake", "keep_alive": 0})).json()
    assert (answer["done_reason"], engine.state) == ("unload", state)


async def test_the_default_engine_is_the_same_after_it_was_freed() -> None:
    engine = loaded_engine()
    app = app_with(engine, default_engine="fake")
    async with http_client(app) as client:
        await client.post("/api/generate", json={"keep_alive": 0})
        [fresh] = app.state.services.registry.list()
    assert (fresh.engine_id, fresh.created_at, fresh.info) == ("fake", engine.created_at, engine.info)
    assert fresh is not engine
