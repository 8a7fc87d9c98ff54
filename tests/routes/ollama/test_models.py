"""Listing, copying and removing models."""

from __future__ import annotations

import pytest

from kolosal.engines.engine import EngineState
from kolosal.routes.ollama.facts import parameter_size, quantization
from tests.fakes import FakeEngine, app_with, http_client
from tests.routes.ollama.asking import loaded_engine, refused


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1500, "2K"),
        (134_515_008, "134.52M"),
        (7_000_000_000, "7B"),
        (7_620_000_000, "7.6B"),
    ],
)
def test_parameters_are_counted_as_people_do(count: int, text: str) -> None:
    assert parameter_size(count) == text


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ("llama 135M Q4_1", "Q4_1"), ("qwen2 1.5B Q4_K - Medium", "Q4_K_M"), ("llama 8B Q3_K - Large", "Q3_K_L"),
        ("llama 8B IQ2_XXS - 2.0625 bpw", "IQ2_XXS"), ("bert 33M all F32 (guessed)", "F32"), ("llama 1B BF16", "BF16"),
        ("gpt-oss 20B MXFP4 MoE", "MXFP4"), ("script", "unknown"),
    ],
)  # fmt: skip
def test_quantisation_has_its_short_name(description: str, text: str) -> None:
    assert quantization(description) == text


async def test_a_model_that_was_never_loaded_is_listed_and_shown() -> None:
    engine = FakeEngine()
    engine.state = EngineState.UNLOADED
    async with http_client(app_with(engine)) as client:
        [row] = (await client.get("/api/tags")).json()["models"]
        shown = (await client.post("/api/show", json={"name": "fake:latest", "verbose": True})).json()
    assert len(row["digest"]) == 64
    assert row["details"]["family"] == ""
    assert (shown["model_info"], shown["capabilities"]) == ({}, ["completion", "tools"])
    assert shown["modelfile"].startswith("FROM /models/fake.gguf\n")
    assert engine.state is EngineState.UNLOADED


async def test_capabilities_are_the_models() -> None:
    embedder = loaded_engine(can_generate=False)
    thinker = loaded_engine(thinking_tags=("<think>", "</think>"))
    for engine, wanted in ((embedder, ["embedding"]), (thinker, ["completion", "tools", "thinking"])):
        async with http_client(app_with(engine)) as client:
            shown = (await client.post("/api/show", json={"model": "fake"})).json()
        assert shown["capabilities"] == wanted


async def test_memory_of_a_gpu_is_told() -> None:
    async with http_client(app_with(loaded_engine(size_bytes=7, n_gpu_layers=3))) as client:
        [row] = (await client.get("/api/ps")).json()["models"]
    assert row["size_vram"] == 7


async def test_a_copy_is_an_engine_of_its_own() -> None:
    app = app_with(FakeEngine())
    async with http_client(app) as client:
        copied = await client.post("/api/copy", json={"source": "fake:latest", "destination": "two:latest"})
        names = [row["name"] for row in (await client.get("/api/tags")).json()["models"]]
        again = await client.post("/api/copy", json={"source": "fake", "destination": "two"})
    assert (copied.status_code, copied.content, names) == (200, b"", ["fake", "two"])
    assert again.status_code == 409
    first, second = app.state.services.registry.list()
    assert (second.config.model_path, second.state) == (first.config.model_path, EngineState.UNLOADED)


@pytest.mark.parametrize("key", ["model", "name"])
async def test_a_deleted_model_is_gone(key: str) -> None:
    async with http_client(app_with(FakeEngine())) as client:
        deleted = await client.request("DELETE", "/api/delete", json={key: "fake"})
        again = await client.request("DELETE", "/api/delete", json={key: "fake"})
    assert (deleted.status_code, deleted.content) == (200, b"")
    assert (again.status_code, again.json()) == (404, {"error": "model 'fake' not found"})


@pytest.mark.parametrize("path", ["/api/pull", "/api/push", "/api/create", "/api/blobs/sha256:0"])
async def test_what_needs_downloads_is_not_here(path: str) -> None:
    status, error = await refused(FakeEngine(), path)
    assert (status, error.split()[0]) == (501, path)
    async with http_client(app_with(FakeEngine())) as client:
        assert (await client.head("/api/blobs/sha256:0")).status_code == 501


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/copy", {"source": "fake"}), ("/api/copy", {"source": "", "destination": "x"}),
        ("/api/copy", {"source": "fake", "destination": "a/b"}), ("/api/show", {"model": None}), ("/api/show", {"model": 5}),
    ],
)  # fmt: skip
async def test_a_bad_name_is_refused(path: str, fields: dict[str, object]) -> None:
    status, _ = await refused(FakeEngine(), path, **fields)
    assert status == 400


async def test_a_configured_default_engine_stands_in() -> None:
    async with http_client(app_with(FakeEngine(), default_engine="fake")) as client:
        assert (await client.post("/api/show", json={})).status_code == 200
        assert (await client.post("/api/generate", json={})).json()["done_reason"] == "load"
