"""An engine that is replaced while a request is on its way to it, as `PUT /engines/{engine_id}` may at any time."""

from __future__ import annotations

from typing import Any

import pytest

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Call, CallResult
from kolosal.engines.state import EngineState
from kolosal.schema import TokensPrompt
from tests.fakes import FakeEngine, FakeRegistry, eventually, http_client, says

KEPT_S = 600
"""What requests ask for; engines have another limit."""


class SwappingRegistry(FakeRegistry):
    """Replaces an engine as soon as a request has acquired it."""

    def __init__(self, engine: Engine, successor: Engine) -> None:
        super().__init__(engine)
        self.acquired: list[Engine] = []
        self._successor = successor

    async def acquire(self, model: str | None) -> Engine:
        engine = await super().acquire(model)
        self.acquired.append(engine)
        if engine is not self._successor:
            self._take_over(engine, self._successor)
        return engine


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/generate", {"prompt": "Hi"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/api/embed", {"input": "Hi"}),
        ("/api/embeddings", {"prompt": "Hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": [[72], [105]], "echo": True}),
    ],
)
async def test_the_engine_that_was_acquired_does_it_all(path: str, fields: dict[str, Any]) -> None:
    engine, successor = FakeEngine(script=says("a")), FakeEngine(script=says("b"))
    registry = SwappingRegistry(engine, successor)
    body = {"model": "fake", "stream": False, **fields}
    if path.startswith("/api/"):
        body["keep_alive"] = KEPT_S
    async with http_client(create_app(Settings(), registry)) as client:
        assert (await client.post(path, json=body)).status_code == 200
    assert registry.acquired == [engine]  # a second time would load the other one for nothing
    assert (len(engine.requests) + len(engine.calls) > 0, successor.requests, successor.calls) == (
        True,
        [],
        [],
    )
    assert (engine.idle_limit_s, successor.idle_limit_s) == (body.get("keep_alive", 300), 300)


class AskedEngine(FakeEngine):
    """Is replaced by another one when it is asked for the first time, and closed before it has answered."""

    registry: FakeRegistry
    successor: FakeEngine

    async def call(self, call: Call) -> CallResult:
        answer = await super().call(call)
        if self.registry.get("fake") is self:
            self.registry._take_over(self, self.successor)
            await eventually(lambda: self.state is EngineState.CLOSED)
        return answer


async def test_an_engine_that_is_replaced_while_it_makes_the_prompt_gives_it_to_the_next() -> None:
    engine, successor = AskedEngine(script=says("a")), FakeEngine(script=says("b"))
    engine.registry, engine.successor = FakeRegistry(engine), successor
    body = {"model": "fake", "prompt": "x", "context": [7], "keep_alive": KEPT_S, "stream": False}
    async with http_client(create_app(Settings(), engine.registry)) as client:
        answer = (await client.post("/api/generate", json=body)).json()
    assert (answer["response"], engine.requests) == ("b", [])
    assert [request.prompt for request in successor.requests] == [TokensPrompt((7, ord("x")))]
    assert successor.calls  # the prompt is made anew: another engine has other tokens
    assert (engine.idle_limit_s, successor.idle_limit_s) == (300, KEPT_S)
