"""`/api/pull`, by the official client: progress in its words, and errors as its own."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import ollama
import pytest
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.downloads.jobs import Downloads
from kolosal.downloads.process import FetcherCommand, fetcher_environment
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from tests.fake_registry import FakeRegistry
from tests.file_server import ServedFile

MODEL = b"GGUF" + random.Random(4).randbytes(1_000_000)  # noqa: S311 - no secret


@pytest.fixture(scope="module")
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        server.add("tiny", "3b", ServedFile(MODEL, bytes_per_s=3_000_000), system="You are tiny.")
        server.add("wrong", "latest", ServedFile(MODEL[:1000], sent=b"GGUF" + b"?" * 996))
        yield server


@pytest.fixture
async def client(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[ollama.AsyncClient]:
    settings = Settings.model_validate({"downloads": {"ollama_registry": registry.url}})
    command = FetcherCommand(fetcher_environment(os.environ))
    downloads = Downloads(settings.downloads, tmp_path / "models", command)
    app: Starlette = create_app(settings, EngineRegistry(WorkerCommand()), downloads=downloads)
    made = ollama.AsyncClient(host="http://127.0.0.1:8080", transport=httpx.ASGITransport(app))
    yield made
    await made._client.aclose()
    await downloads.close()
    await asyncio.to_thread(registry.cdn.settle)


async def test_progress_is_told_as_ollama_tells_it(client: ollama.AsyncClient) -> None:
    lines = [line async for line in await client.pull("tiny:3b", stream=True)]
    statuses = [line.status for line in lines]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    layers = {line.digest: line for line in lines if line.digest}
    assert len(layers) == 3  # weights, system prompt, configuration
    assert all(
        line.completed == line.total and line.status == f"pulling {digest[7:19]}"
        for digest, line in layers.items()
    )
    weights = [line.completed or 0 for line in lines if line.total == len(MODEL)]
    assert len(weights) > 2
    assert weights == sorted(weights)


async def test_without_a_stream_it_waits_for_the_end(client: ollama.AsyncClient) -> None:
    assert (await client.pull("ollama:tiny:3b")).status == "success"


async def test_a_model_that_is_not_there_is_a_404(client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError, match="has no model none:latest") as caught:
        await client.pull("none")
    assert caught.value.status_code == 404


async def test_what_fails_later_is_the_last_line(client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError, match="is not what it should be: its digest is sha256:"):
        [line async for line in await client.pull("wrong", stream=True)]
