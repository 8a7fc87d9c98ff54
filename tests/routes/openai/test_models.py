"""`GET /v1/models` and health: they look, and touch nothing."""

from __future__ import annotations

import time

import pytest

from kolosal import __version__
from kolosal.engines.state import EngineState
from tests.fakes import FakeEngine, app_with, http_client


def _app_with_two() -> tuple[FakeEngine, object]:
    idle = FakeEngine("idle")
    idle.state = EngineState.UNLOADED
    return idle, app_with(FakeEngine("busy"), idle)


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_A01_engines_are_models(prefix: str) -> None:
    idle, app = _app_with_two()
    async with http_client(app) as client:  # type: ignore[arg-type]
        body = (await client.get(f"{prefix}/models")).json()
        one = (await client.get(f"{prefix}/models/idle")).json()
        unknown = await client.get(f"{prefix}/models/nope")
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["busy", "idle"]
    assert one == body["data"][1]
    assert abs(one.pop("created") - time.time()) < 60
    assert one == {
        "id": "idle", "object": "model", "owned_by": "kolosal", "name": "idle.gguf", "backend": "llamacpp", "aliases": [],
        "status": {"value": "unloaded"},
        "capabilities": [], "context_length": 4096, "max_model_len": 4096, "meta": None,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
    }  # fmt: skip
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert idle.state is EngineState.UNLOADED


@pytest.mark.parametrize(
    "written", ["org/name", "org%2Fname", "org//name", "org/name/", "org%2Fname:latest", "ORG/Name"]
)
async def test_a_name_with_slashes_stands_in_a_path_in_either_way(written: str) -> None:
    engines = [FakeEngine("org/name"), FakeEngine("org"), FakeEngine("org/status"), FakeEngine("a%b")]
    async with http_client(app_with(*engines)) as client:
        assert (await client.get(f"/v1/models/{written}")).json()["id"] == "org/name"
        assert (await client.get(f"/engines/{written}")).json()["engine_id"] == "org/name"
        assert (await client.get(f"/engines/{written}/status")).json()["engine_id"] == "org/name"
        assert (await client.get(f"/engines/{written}/logs")).json()["engine_id"] == "org/name"
        assert (await client.get("/engines/org/status")).json()["engine_id"] == "org"
        assert (await client.get("/engines/org%2Fstatus")).json()["engine_id"] == "org/status"
        assert (await client.get("/engines/a%25b")).json()["engine_id"] == "a%b"
        assert (await client.delete(f"/engines/{written}")).status_code == 200
        assert (await client.get(f"/v1/models/{written}")).status_code == 404
        assert (await client.get("/engines/org/load")).status_code == 405


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/status"])
async def test_health_counts_engines_and_loads_none(path: str) -> None:
    idle, app = _app_with_two()
    async with http_client(app) as client:  # type: ignore[arg-type]
        body = (await client.get(path)).json()
    assert abs(body.pop("timestamp") / 1000 - time.time()) < 60
    assert body["server"].pop("uptime") >= 0
    assert body == {
        "status": "healthy",
        "problems": [],
        "server": {"name": "Kolosal Inference Server", "version": __version__, "update": None},
        "node_manager": {
            "total_engines": 2,
            "loaded_engines": 1,
            "unloaded_engines": 1,
            "autoscaling": "enabled",
        },
        "engines": [{"engine_id": "busy", "status": "loaded"}, {"engine_id": "idle", "status": "unloaded"}],
    }
    assert (idle.state, idle.last_used_at) == (EngineState.UNLOADED, None)


async def test_the_root_says_what_this_is() -> None:
    async with http_client(app_with()) as client:
        assert (await client.get("/")).json()["status"] == "running"
        assert (await client.head("/")).status_code == 200
