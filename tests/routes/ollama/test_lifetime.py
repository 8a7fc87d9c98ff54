"""What stays in memory, and what does not."""

from __future__ import annotations

import pytest

from kolosal.engines.in_flight import InFlightGeneration
from kolosal.engines.state import EngineState
from kolosal.engines.stream import RequestStream
from kolosal.errors import Draining
from kolosal.sampling import SamplingParams
from kolosal.schema import GenerateRequest, TextPrompt
from tests.fakes import FakeEngine, app_with, eventually, http_client, says
from tests.routes.ollama.asking import loaded_engine


def in_use(engine: FakeEngine) -> RequestStream:
    """A generation of somebody else's that runs."""
    stream = RequestStream(lambda: None, engine.observer.begin(engine.engine_id))
    request = GenerateRequest(TextPrompt("x"), SamplingParams())
    engine._requests.add(InFlightGeneration(99, request, stream))
    return stream


async def test_an_engine_that_others_use_stays() -> None:
    engine = loaded_engine(says("a"))
    in_use(engine)
    async with http_client(app_with(engine)) as client:
        for body in ({"keep_alive": 0}, {"prompt": "a", "keep_alive": 0, "stream": False}):
            assert (await client.post("/api/generate", json={"model": "fake", **body})).status_code == 200
            assert engine.state is EngineState.READY


async def test_a_removed_engine_is_not_waited_for_while_it_is_used() -> None:
    engine = loaded_engine()
    in_use(engine)
    app = app_with(engine)
    async with http_client(app) as client:
        assert (await client.request("DELETE", "/api/delete", json={"model": "fake"})).status_code == 200
        assert (await client.get("/api/tags")).json() == {"models": []}
    assert engine.in_flight == 1
    engine._requests.fail_all(Draining("over"))
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
        [same] = app.state.services.registry.list()
        await eventually(lambda: engine.state is EngineState.UNLOADED)
    assert same is engine
