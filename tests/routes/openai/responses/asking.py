"""Asking for responses, as the tests of that API do."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
from starlette.applications import Starlette

from kolosal.errors import KolosalError
from kolosal.schema import GenerateRequest, TokenDelta
from tests.fakes import FakeEngine, Script, app_with, http_client
from tests.store.databases import empty_database

GOLDEN = Path(__file__).parent / "golden"

HELLO: dict[str, Any] = {"model": "fake", "input": "Hello"}

WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
"""A call as a model writes it whose template knows no tools."""


@asynccontextmanager
async def client_of(*engines: FakeEngine, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one daemon, which remembers what it was asked."""
    async with kept_by(*engines, **settings) as app, http_client(app) as client:
        yield client


@asynccontextmanager
async def kept_by(*engines: FakeEngine, **settings: Any) -> AsyncIterator[Starlette]:
    """A daemon with a store, which is empty unless the settings say where it is."""
    with empty_database() as url:
        app = app_with(*engines, **{"store_url": url, **settings})
        yield app
        await end(app)


async def end(app: Starlette) -> None:
    """As the daemon ends."""
    await app.state.services.responses.close()
    await app.state.services.store.close()


async def ask(engine: FakeEngine, **fields: Any) -> tuple[int, dict[str, Any]]:
    """One request, to a daemon of its own."""
    async with client_of(engine) as client:
        response = await client.post("/v1/responses", json=HELLO | fields)
    return response.status_code, response.json()


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A response."""
    response = await client.post("/v1/responses", json=HELLO | fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def stream(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, each with its own name."""
    response = await client.post("/v1/responses", json=HELLO | {"stream": True} | fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return events_of(response.text)


def events_of(text: str) -> list[dict[str, Any]]:
    """The events in a stream's text; their numbers count from 0."""
    frames = text.split("\n\n")
    assert frames.pop() == ""
    events = []
    for number, frame in enumerate(frames):
        name, _, data = frame.partition("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        events.append(event)
    return events


def in_turn(*scripts: Script) -> Script:
    """A script that plays another one for each request; the last one for all that follow."""
    left = list(scripts)

    def script(request: GenerateRequest) -> list[TokenDelta | KolosalError]:
        return list((left.pop(0) if len(left) > 1 else left[0])(request))

    return script


def settled(text: str) -> str:
    """A text with its ids and times replaced by numbers that depend on nothing."""
    seen: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return seen.setdefault(match[0], f"{match[1]}_{len(seen) + 1}")

    text = re.sub(r"\b(resp|msg|rs|fc|fco)_[0-9a-f]{48}\b", number, text)
    text = re.sub(r"\b(call)_[A-Za-z0-9]{24}\b", number, text)
    return re.sub(r'("(?:created_at|completed_at)": ?)\d+', r"\g<1>1", text)
