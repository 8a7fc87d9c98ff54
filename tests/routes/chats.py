"""Asking for chat completions, as the tests of that route do."""

from __future__ import annotations

from typing import Any

import orjson

from tests.fakes import FakeEngine, app_with, http_client

HELLO: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}


async def ask(engine: FakeEngine, **fields: Any) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/chat/completions", json=HELLO | fields)
    return response.status_code, response.json()


async def stream(engine: FakeEngine, **fields: Any) -> list[dict[str, Any] | str]:
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/chat/completions", json=HELLO | {"stream": True} | fields)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    frames = response.text.split("\n\n")
    assert frames.pop() == ""
    payloads = [frame.removeprefix("data: ") for frame in frames]
    return [payload if payload == "[DONE]" else orjson.loads(payload) for payload in payloads]
