"""The application over a store on the disk and an engine that embeds."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.engines.ipc.calls import Call, CallResult, Embed, Embedded
from kolosal.errors import KolosalError
from kolosal.schema import TextPrompt
from kolosal.security.auth import Authenticator
from tests.fakes import FakeEngine, FakeRegistry, http_client, plain_answer
from tests.settings import settings_of

TOPICS = ("cat", "dog", "bank")


def by_topic(call: Call) -> CallResult | KolosalError:
    """A model whose vectors say which of the topics a text names, and how often."""
    if not isinstance(call, Embed):
        return plain_answer(call)
    return Embedded(tuple(_vector(each) for each in call.inputs), (3,) * len(call.inputs))


def _vector(prompt: object) -> str:
    assert isinstance(prompt, TextPrompt)
    counts = [prompt.text.lower().count(topic) for topic in TOPICS]
    length = sum(count * count for count in counts) ** 0.5 or 1.0
    return base64.b64encode(struct.pack("<3f", *(count / length for count in counts))).decode()


@pytest.fixture
def embedder() -> FakeEngine:
    engine = FakeEngine("embedder")
    engine.answer = by_topic
    return engine


@pytest.fixture
async def make_app(tmp_path: Path, embedder: FakeEngine) -> AsyncIterator[Callable[..., Starlette]]:
    """Makes the application, under other settings; what it has is closed in the end."""
    made: list[Starlette] = []

    def make(authenticator: Authenticator | None = None, **settings: Any) -> Starlette:
        all_settings = settings_of(store_url=f"sqlite:///{tmp_path / 'kolosal.db'}", **settings)
        made.append(create_app(all_settings, FakeRegistry(embedder), authenticator=authenticator))
        return made[-1]

    yield make
    for app in made:
        await app.state.services.indexer.close()
        await app.state.services.store.close()


@pytest.fixture
def app(make_app: Callable[..., Starlette]) -> Starlette:
    return make_app()


@pytest.fixture
async def http(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(app) as client:
        yield client
