"""A request names a model of the library: it is answered, in every dialect, as if somebody had added an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import FakeRegistry
from tests.gguf_files import LLAMA, gguf
from tests.models.serving import AddingRegistry, client_of, write_models

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}

Client = Callable[..., httpx.AsyncClient]


@pytest.fixture
def registry() -> FakeRegistry:
    return AddingRegistry()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_models(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def client(registry: FakeRegistry, models: Path) -> Client:
    return partial(client_of, registry, models)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 4}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 16}),
        ("/v1/embeddings", {"input": "Hi"}),
        ("/v1/messages", CHAT),
        ("/api/chat", {"messages": CHAT["messages"], "stream": False, "options": {"num_predict": 4}}),
        ("/api/generate", {"prompt": "Hi", "stream": False, "options": {"num_predict": 4}}),
        ("/api/embed", {"input": "Hi"}),
        ("/completion", {"prompt": "Hi", "n_predict": 4}),
        ("/tokenize", {"content": "Hi"}),
    ],
)
async def test_every_dialect_finds_a_model_that_nobody_added(
    path: str, body: dict[str, Any], client: Client, registry: FakeRegistry
) -> None:
    async with client() as http:
        answer = await http.post(path, json={"model": "org/tiny", **body})
        assert answer.status_code == 200, answer.text
    [engine] = registry.list()
    assert (engine.engine_id, engine.kept) == ("org/Tiny-Q4_K_M", False)


async def test_all_its_names_and_all_who_ask_at_once_get_one_engine(
    client: Client, registry: FakeRegistry
) -> None:
    names = ("Tiny-Q4_K_M", "org/tiny", "tiny:latest", "Tiny-Q4_K_M.gguf", "org/Tiny-Q4_K_M")
    async with client() as http:
        asking = [http.post("/v1/chat/completions", json={"model": name, **CHAT}) for name in names]
        answers = await asyncio.gather(*asking)
        assert [answer.status_code for answer in answers] == [200] * len(names)
        assert len(registry.list()) == 1
        assert (await http.get("/engines/tiny")).json()["engine_id"] == "org/Tiny-Q4_K_M"


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        (
            "org/tyny",
            404,
            "Model 'org/tyny' not found or could not be loaded; did you mean 'org/Tiny-Q4_K_M'?",
        ),
        ("nobody", 404, "Model 'nobody' not found or could not be loaded"),
        ("/etc/passwd", 404, "Model '/etc/passwd' not found or could not be loaded"),
        ("broken", 400, "Model 'broken' cannot be loaded: The model file 'broken.gguf' ends at byte 4"),
    ],
)
async def test_what_cannot_be_loaded_says_why(name: str, status: int, said: str, client: Client) -> None:
    async with client() as http:
        answer = await http.post("/v1/chat/completions", json={"model": name, **CHAT})
        assert (answer.status_code, answer.json()["error"]["message"][: len(said)]) == (status, said)


@pytest.mark.parametrize("settings", [{"library_autoload": False}, {"model_roots": ["/nowhere"]}])
async def test_settings_bound_what_a_request_may_load(
    settings: dict[str, Any], client: Client, registry: FakeRegistry
) -> None:
    async with client(**settings) as http:
        answer = await http.post("/v1/chat/completions", json={"model": "org/tiny", **CHAT})
        assert answer.status_code == (400 if "model_roots" in settings else 404)
    assert registry.list() == []


async def test_a_model_that_came_is_found_and_one_that_went_is_not(client: Client, models: Path) -> None:
    async with client() as http:
        (models / "late.gguf").write_bytes(gguf(LLAMA))
        ask = {"model": "late", **CHAT}
        (models / "late.gguf").rename(models / "gone.gguf")
        assert (await http.post("/v1/chat/completions", json={**ask, "model": "gone"})).status_code == 200
        (models / "org" / "Tiny-Q4_K_M.gguf").unlink()
        gone = await http.post("/v1/chat/completions", json={**ask, "model": "tiny"})
        assert (gone.status_code, gone.json()["error"]["message"]) == (
            404,
            "Model 'org/Tiny-Q4_K_M' not found: its file was removed",
        )
