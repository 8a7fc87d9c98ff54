"""llama-server's ways to load, unload and watch models, as front ends use them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.engines.state import EngineState
from kolosal.models.folders import PlainFolder
from kolosal.models.library import Library
from tests.fakes import AsgiRequest, FakeEngine, eventually
from tests.models.serving import TINY, AddingRegistry, client_of, write_models


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_models(tmp_path / "models")
    return tmp_path / "models"


async def test_models_say_what_front_ends_read(models: Path) -> None:
    idle, broken = FakeEngine("idle"), FakeEngine("broken-engine")
    idle.state = broken.state = EngineState.UNLOADED
    broken.last_error = "no"
    loading = FakeEngine("loading")
    loading.state = EngineState.LOADING
    loading.load_progress = 0.25
    async with client_of(AddingRegistry(FakeEngine("ready"), idle, broken, loading), models) as http:
        listed = (await http.get("/models?reload=1")).json()["data"]
    progress = {"stages": ["text_model"], "current": "text_model", "value": 0.25}
    assert {row["id"]: row["status"] for row in listed} == {
        "ready": {"value": "loaded"},
        "idle": {"value": "unloaded"},
        "broken-engine": {"value": "failed", "failed": True},
        "loading": {"value": "loading", "progress": progress},
        TINY: {"value": "unloaded"},
    }
    tiny = listed[-1]
    assert tiny["capabilities"] == ["completion", "tools"]
    assert (tiny["context_length"], tiny["max_model_len"]) == (4096, 4096)
    assert {key: tiny["meta"][key] for key in ("n_ctx_train", "quantization", "size")} == {
        "n_ctx_train": 2048,
        "quantization": "Q4_K_M",
        "size": (models / f"{TINY}.gguf").stat().st_size,
    }


async def test_a_model_is_loaded_and_unloaded_by_its_name(models: Path) -> None:
    registry = AddingRegistry()
    async with client_of(registry, models) as http:
        assert (await http.post("/models/load", json={"model": "tiny-q4_k_m"})).json() == {"success": True}
        engine = registry.get(TINY)
        await eventually(lambda: engine.state is EngineState.READY)
        assert (await http.post("/v1/models/unload", json={"model": TINY})).json() == {"success": True}
        assert engine.state is EngineState.UNLOADED
        unknown = await http.post("/models/load", json={"model": "nobody"})
        assert unknown.status_code == 404


async def test_what_becomes_of_models_is_told(models: Path) -> None:
    registry, engine = AddingRegistry(), FakeEngine("a")
    registry._engines["a"] = engine
    engine.observer = registry.observer
    app = create_app(Settings(), registry, library=Library([PlainFolder(models)]))
    stream = AsgiRequest("/models/sse", method="GET")
    answering = asyncio.create_task(app(stream.scope, stream.receive, stream.send))
    await eventually(lambda: stream.sent)
    engine.state = EngineState.LOADING
    engine.load_progress = 0.5
    engine.state = EngineState.READY
    engine.state = EngineState.UNLOADED
    await app.state.services.library.refresh()
    registry.remove("a")
    registry.observer.close()
    await answering
    body = b"".join(message.get("body", b"") for message in stream.sent)
    told = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
    said = [(each["model"], each["event"], each.get("data", {}).get("status")) for each in told]
    assert said == [
        ("a", "model_status", "loading"),
        ("a", "model_status", "loading"),
        ("a", "model_status", "loaded"),
        ("a", "model_status", "unloaded"),
        ("*", "models_reload", None),
        ("*", "models_reload", None),
        ("a", "model_remove", None),
    ]
    assert told[1]["data"]["progress"]["value"] == 0.5
