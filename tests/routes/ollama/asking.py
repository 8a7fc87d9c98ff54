"""Asking in Ollama's way, as the tests of this dialect do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson

from kolosal.schema import ChatPrompt
from tests.engines.helpers import INFO
from tests.fakes import FakeEngine, Script, app_with, http_client

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
"""How a model whose template knows no tools writes a call."""

GOLDEN = Path(__file__).parent / "golden"


def loaded_engine(script: Script | None = None, **info: Any) -> FakeEngine:
    """An engine that was loaded and knows what it got."""
    engine = FakeEngine(script=script)
    engine.info = replace(INFO, **info)
    return engine


async def post(engine: FakeEngine, path: str, body: dict[str, Any]) -> httpx.Response:
    async with http_client(app_with(engine)) as client:
        return await client.post(path, content=orjson.dumps(body))


async def ask(engine: FakeEngine, path: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer that does not stream."""
    response = await post(engine, path, {"model": "fake", "stream": False, **fields})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response.status_code, response.json()


async def generate(engine: FakeEngine, **fields: Any) -> dict[str, Any]:
    status, body = await ask(engine, "/api/generate", **fields)
    assert status == 200, body
    return body


async def chat(engine: FakeEngine, **fields: Any) -> dict[str, Any]:
    status, body = await ask(engine, "/api/chat", **{"messages": HELLO} | fields)
    assert status == 200, body
    return body


async def refused(engine: FakeEngine, path: str, **fields: Any) -> tuple[int, str]:
    """Status and text of an error."""
    status, body = await ask(engine, path, **fields)
    assert body.keys() == {"error"}
    return status, body["error"]


async def lines(engine: FakeEngine, path: str, **fields: Any) -> list[dict[str, Any]]:
    """The objects of a stream; nothing asks for one, as it is what Ollama does."""
    response = await post(engine, path, {"model": "fake", **fields})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("\n")
    return [orjson.loads(line) for line in response.text[:-1].split("\n")]


def chat_prompt(engine: FakeEngine) -> ChatPrompt:
    """The chat that an engine was asked to continue."""
    [request] = engine.requests
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt


def golden(name: str) -> str:
    """The lines of a stream as they must be."""
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
