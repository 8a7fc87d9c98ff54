"""Downloads over HTTP: `/downloads…`, engines whose models are fetched first, and their events. Real fetchers, fake servers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.downloads.jobs import Downloads
from kolosal.downloads.process import FetcherCommand, fetcher_environment
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from tests.fake_registry import FakeRegistry
from tests.fakes import http_client
from tests.file_server import ServedFile

MODEL = b"GGUF" + random.Random(3).randbytes(500_000)  # noqa: S311 - no secret


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeRegistry]:
    with FakeRegistry() as server:
        yield server


@pytest.fixture
async def client(tmp_path: Path, ollama: FakeRegistry, fake_worker: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings.model_validate({"downloads": {"ollama_registry": ollama.url}})
    command: WorkerCommand = fake_worker()
    registry = EngineRegistry(command)
    downloads = Downloads(
        settings.downloads,
        tmp_path / "models",
        FetcherCommand(fetcher_environment(os.environ)),
        events=registry.observer.events,
    )
    async with http_client(create_app(settings, registry, downloads=downloads)) as http:
        yield http
    await downloads.close()
    await registry.close(drain_s=0)
    await asyncio.to_thread(ollama.cdn.settle)


@pytest.fixture
def loadable(tiny_gguf: Path) -> bytes:
    """A model that a worker can load."""
    return tiny_gguf.read_bytes()


async def ended(client: httpx.AsyncClient, download_id: str) -> dict[str, Any]:
    while True:
        body: dict[str, Any] = (await client.get(f"/downloads/{download_id}")).json()
        if body["status"] not in ("downloading", "creating_engine"):
            return body
        await asyncio.sleep(0.02)


def slow(ollama: FakeRegistry, name: str) -> ServedFile:
    return ollama.add(name, "latest", ServedFile(MODEL, bytes_per_s=100_000))


async def test_a_download_from_its_beginning_to_its_end(
    client: httpx.AsyncClient, ollama: FakeRegistry
) -> None:
    ollama.add("tiny", "3b", MODEL)
    answer = await client.post("/v1/downloads", json={"source": "ollama:tiny:3b", "dry_run": True})
    plan = answer.json()
    assert (answer.status_code, plan["model_id"], plan["present_bytes"]) == (200, "tiny:3b", 0)
    assert plan["total_bytes"] == sum(file["size"] for file in plan["files"]) > len(MODEL)
    answer = await client.post("/downloads", json={"source": "ollama:tiny:3b"})
    assert (answer.status_code, answer.json()["status"]) == (202, "downloading")
    body = await ended(client, "tiny:3b")
    assert body["status"] == "completed"
    assert body["progress"]["percentage"] == 100.0
    assert body["timing"]["end_time"] >= body["timing"]["start_time"]
    assert body["url"].startswith(ollama.url)
    events = (await client.get("/v1/events?follow=false&kinds=download.state,download.progress")).text
    assert events.count("event: download.state") == 2
    assert "event: download.progress" in events
    listed = (await client.get("/v1/downloads")).json()
    assert (listed["total_active"], listed["total_count"]) == (0, 1)


async def test_paused_resumed_and_cancelled(client: httpx.AsyncClient, ollama: FakeRegistry) -> None:
    slow(ollama, "slow")
    await client.post("/downloads", json={"source": "ollama:slow"})
    path = "/downloads/slow%3Alatest"  # as clients write a part of a path
    [row] = (await client.get("/v1/models")).json()["data"]
    assert (row["id"], row["status"]["value"]) == ("slow:latest", "downloading")
    assert 0 <= row["status"]["progress"]["value"] < 1
    assert (await client.post(f"{path}/pause")).json()["status"] == "paused"
    assert (await client.get("/downloads")).json()["total_active"] == 1
    again = await client.post(f"{path}/pause")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "download_busy")
    assert (await client.post(f"{path}/resume")).json()["status"] == "downloading"
    assert (await client.post("/v1/downloads/cancel")).json()["count"] == 1
    assert (await client.get(path)).json()["status"] == "cancelled"
    assert (await client.delete("/downloads")).json()["count"] == 1
    gone = await client.get(path)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "download_not_found")
    assert gone.json()["error"]["message"] == "No download found for model ID: slow:latest"


async def test_an_engine_whose_model_is_fetched_first(
    client: httpx.AsyncClient, ollama: FakeRegistry, loadable: bytes
) -> None:
    ollama.add("real", "latest", loadable)
    body = {"engine_id": "mine", "model_path": "ollama:real", "n_ctx": 128}
    answer = await client.post("/models", json=body)
    assert answer.status_code == 202
    said = answer.json()
    assert (said["engine_id"], said["status"], said["download_id"]) == ("mine", "downloading", "mine")
    done = await ended(client, "mine")
    assert (done["status"], done["engine_creation"]) == (
        "completed",
        {"engine_id": "mine", "status": "created"},
    )
    assert (await client.get("/models/mine/status")).json()["status"] == "loaded"
    assert (await client.get("/engines/mine")).json()["loading_parameters"]["n_ctx"] == 128
    taken = await client.post("/engines", json=body)
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "engine_id_exists")
    assert (await client.delete("/models/mine")).json()["status"] == "removed"


async def test_a_model_that_is_none_fails_its_engine_and_says_why(
    client: httpx.AsyncClient, ollama: FakeRegistry
) -> None:
    ollama.add("broken", "latest", b"GGUF but nothing more")
    await client.post("/v1/downloads", json={"source": "ollama:broken", "engine": {"engine_id": "broken"}})
    body = await ended(client, "broken")
    assert (body["status"], body["engine_creation"]["status"]) == ("failed", "failed")
    assert "GGUF" in body["error_message"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"source": "ollama:none"}, 404, "model_not_found"),
        ({"source": "https://localhost/m.gguf"}, 400, "address_not_allowed"),
        ({"source": "../etc/passwd"}, 400, None),
        ({"source": "ollama:none", "quant": "Q4_0"}, 400, None),
        ({"source": "ollama:none", "engine": {}}, 400, None),
        ({"source": "ollama:none", "more": 1}, 400, None),
        ({}, 400, None),
    ],
)
async def test_bad_requests_are_sentences(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, code: str | None
) -> None:
    answer = await client.post("/v1/downloads", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["message"]
