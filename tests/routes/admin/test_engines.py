"""Engine management over real worker processes with the fake backend."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.sizing import FileSizes
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from tests.fakes import AsgiRequest, eventually, http_client
from tests.gguf_files import corrupt
from tests.gguf_files import gguf as gguf_file

Command = Callable[..., WorkerCommand]


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_file())
    return str(path)


@pytest.fixture
async def registry(fake_worker: Command) -> AsyncIterator[EngineRegistry]:
    registry = EngineRegistry(fake_worker())
    yield registry
    await registry.close(drain_s=0)


@pytest.fixture
def app(registry: EngineRegistry) -> Starlette:
    return create_app(Settings(), registry)


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(app) as client:
        yield client


async def test_an_engine_lives_its_life(client: httpx.AsyncClient, gguf: str) -> None:
    created = await client.post(
        "/engines", json={"engine_id": "a", "model_path": gguf, "n_ctx": 512, "main_gpu_id": 1}
    )
    assert created.status_code == 201
    body = created.json()
    parameters = body.pop("loading_parameters")
    assert body == {
        "engine_id": "a", "model_path": gguf, "backend": "llamacpp", "status": "loaded", "load_immediately": True, "main_gpu_id": 1, "fit": [], "warnings": [],
        "message": "Engine added successfully",
    }  # fmt: skip
    assert (parameters["n_ctx"], parameters["n_keep"], parameters["kv_pool_tokens"]) == (512, 512, 2048)
    assert (parameters["n_threads"], parameters["use_mlock"], parameters["n_gpu_layers"]) == (1, False, 0)

    listed = (await client.get("/v1/engines")).json()
    assert listed == {
        "engines": [{"engine_id": "a", "status": "loaded", "backend": "llamacpp", "last_accessed": None}],
        "total_count": 1,
    }
    status = (await client.get("/engines/a/status")).json()
    assert status == {
        "engine_id": "a", "status": "loaded", "available": True, "message": "Engine is loaded and ready",
    }  # fmt: skip

    chat = {"model": "a", "messages": [{"role": "user", "content": "<say>hi é</say>"}]}
    answer = (await client.post("/v1/chat/completions", json=chat)).json()
    assert answer["choices"][0]["message"]["content"] == "hi é"
    shown = (await client.get("/v1/engines/a")).json()
    assert (shown["state"], shown["in_flight"], shown["last_error"], shown["info"]["n_ctx"]) == (
        "ready",
        0,
        None,
        512,
    )
    assert set(shown["info"]) == {
        "description", "architecture", "n_params", "size_bytes", "n_vocab", "n_ctx_train", "n_ctx", "kv_pool_tokens",
        "n_parallel", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "n_gpu_layers", "flash_attn", "chat_template",
        "prompt_cache", "tool_format", "thinking_tags", "can_generate", "n_embd", "pooling", "sampling", "unused_bytes",
        "repacked_bytes",
    }  # fmt: skip
    assert shown["last_accessed"].endswith("Z")
    assert isinstance(shown["worker_pid"], int)

    removed = (await client.request("DELETE", "/engines/a", json={"engine_id": "other"})).json()
    assert removed == {
        "engine_id": "a", "status": "removed", "message": "Engine removed successfully", "in_flight": 0,
    }  # fmt: skip
    for response in (
        await client.get("/engines/a/status"),
        await client.delete("/engines/a"),
        await client.get("/engines/a"),
    ):
        assert response.status_code == 404
        assert response.json() == {
            "error": {
                "message": "Engine not found",
                "type": "not_found_error",
                "param": "engine_id",
                "code": None,
            }
        }


async def test_nested_parameters_count_and_flat_ones_win(client: httpx.AsyncClient, gguf: str) -> None:
    body = {
        "model_id": "a", "model_path": gguf, "load_immediately": False, "model_type": "llm", "inference_engine": "llama-cpu",
        "loading_parameters": {"n_ctx": 1024, "n_batch": 256, "seed": None}, "n_ctx": 2048, "n_threads": None,
    }  # fmt: skip
    created = (await client.post("/v1/engines", json=body)).json()
    assert (created["engine_id"], created["status"], created["load_immediately"]) == ("a", "created", False)
    parameters = created["loading_parameters"]
    assert (parameters["n_ctx"], parameters["n_batch"], parameters["n_threads"]) == (2048, 256, None)
    assert (await client.get("/engines")).json()["engines"][0]["status"] == "unloaded"
    message = (await client.get("/engines/a/status")).json()["message"]
    assert message == "Engine exists but is currently unloaded"
    answer = await client.post("/v1/completions", json={"model": "a", "prompt": "<say>x</say>"})
    assert answer.json()["choices"][0]["text"] == "x"


@pytest.mark.parametrize("version", ["", "/v1"])
async def test_a_taken_name_is_a_conflict(client: httpx.AsyncClient, gguf: str, version: str) -> None:
    body = {"engine_id": "a", "model_path": gguf, "load_immediately": False}
    assert (await client.post(f"{version}/engines", json=body)).status_code == 201
    again = await client.post(f"{version}/engines", json=body)
    assert again.status_code == 409
    error = again.json()["error"]
    assert (error["param"], error["code"]) == ("engine_id", "engine_id_exists")
    assert error["message"] == "Engine ID 'a' already exists. Please choose a different engine ID."


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"engine_id": None}, "engine_id", "Missing required fields: engine_id and model_path are required"),
        (
            {"model_path": None},
            "model_path",
            "Missing required fields: engine_id and model_path are required",
        ),
        ({"model_path": ""}, "model_path", "Missing required fields: engine_id and model_path are required"),
        ({"n_gpu_layer": 5}, "n_gpu_layer", "Unknown field: n_gpu_layer"),
        ({"n_ctx": 10**40}, "n_ctx", "n_ctx must be at most 1000000, not 1000"),
        ({"loading_parameters": "x"}, "loading_parameters", "-Depth"),
        (
            {"loading_parameters": {"n_ctx": -1}},
            "loading_parameters.n_ctx",
            "loading_parameters.n_ctx must be at least 0",
        ),
        ({"loading_parameters": {"model_type": "x"}}, "loading_parameters.model_type", "Unknown field"),
    ],
)
async def test_a_bad_body_is_a_400_that_says_why(
    client: httpx.AsyncClient, gguf: str, fields: dict[str, Any], param: str, message: str
) -> None:
    body = {"engine_id": "a", "model_path": gguf} | fields
    response = await client.post("/engines", content=json.dumps(body))
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert message in error["message"]
    assert (await client.get("/engines")).json()["total_count"] == 0


async def test_a_bad_path_is_a_400_with_its_code(client: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("text")
    paths = {
        "/no/such.gguf": "model_path_not_found",
        str(tmp_path / "x.gguf"): "invalid_model_format",
        "/dev/null": "invalid_model_path_type",
    }
    for path, code in paths.items():
        response = await client.post("/engines", json={"engine_id": "a", "model_path": path})
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, "model_path", code)


async def test_a_model_that_cannot_be_loaded_is_a_422_with_details(fake_worker: Command, gguf: str) -> None:
    registry = EngineRegistry(fake_worker("load_error"))
    async with http_client(create_app(Settings(), registry)) as client:
        response = await client.post("/engines", json={"engine_id": "a", "model_path": gguf, "n_ctx": 99})
        assert response.status_code == 422
        error = response.json()["error"]
        assert (error["type"], error["param"], error["code"]) == (
            "model_loading_error", "model_path", "model_loading_failed",
        )  # fmt: skip
        assert "broken on purpose" in error["message"]
        assert error["details"] == {
            "engine_id": "a", "model_path": gguf, "n_ctx": 99, "n_gpu_layers": "auto", "main_gpu_id": 0,
        }  # fmt: skip
        assert (await client.get("/engines")).json()["total_count"] == 0


async def test_leaving_while_the_engine_loads_leaves_no_engine(fake_worker: Command, gguf: str) -> None:
    registry = EngineRegistry(fake_worker("load_hang"))
    request = AsgiRequest("/engines", {"engine_id": "a", "model_path": gguf})
    task = request.start(create_app(Settings(), registry))
    await eventually(lambda: any(engine.load_progress for engine in registry.list()))
    assert registry.list()[0].state is EngineState.LOADING
    request.leave()
    await task
    assert registry.list() == []


async def test_removing_lets_running_generations_finish(fake_worker: Command, gguf: str) -> None:
    registry = EngineRegistry(fake_worker("step_s=0.005"))
    app = create_app(Settings(), registry)
    async with http_client(app) as client:
        await client.post("/engines", json={"engine_id": "a", "model_path": gguf})
        body = {"model": "a", "prompt": "5:", "stream": True, "max_tokens": 30}
        request = AsgiRequest("/v1/completions", body)
        task = request.start(app)
        await request.until(b"6")
        removed = (await client.delete("/engines/a")).json()
        assert removed["in_flight"] == 1
        assert (await client.get("/engines/a")).status_code == 404
        assert (await client.post("/v1/completions", json={"model": "a", "prompt": "x"})).status_code == 404
    await request.until(b"[DONE]")
    request.leave()
    await task
    await registry.close(drain_s=0)


# --- in memory ---


async def test_an_engine_is_unloaded_and_loaded_again(client: httpx.AsyncClient, gguf: str) -> None:
    await client.post(
        "/engines", json={"engine_id": "a", "model_path": gguf, "idle_ttl_s": 5, "max_queued": 7}
    )
    shown = (await client.get("/engines/a")).json()
    assert (shown["pin"], shown["idle_ttl_s"], shown["max_queued"]) == (False, 5, 7)
    assert 0 < shown["expires_in_s"] <= 5
    assert shown["memory"] == {"host": 0, "gpus": {}}

    for body in (None, {}, {"timeout_s": None}):
        unloaded = await client.post("/engines/a/unload", json=body)
        assert (unloaded.status_code, unloaded.json()["state"]) == (200, "unloaded")
        assert (unloaded.json()["worker_pid"], unloaded.json()["memory"]) == (None, None)
        again = await client.post("/v1/engines/a/load")
        assert (again.status_code, again.json()["state"]) == (200, "ready")


async def test_an_unload_that_takes_too_long_is_a_conflict(fake_worker: Command, gguf: str) -> None:
    registry = EngineRegistry(fake_worker("step_s=0.005"))
    app = create_app(Settings(), registry)
    async with http_client(app) as client:
        await client.post("/engines", json={"engine_id": "a", "model_path": gguf})
        request = AsgiRequest("/v1/completions", {"model": "a", "prompt": "5:", "stream": True})
        task = request.start(app)
        await request.until(b"6")
        refused = await client.post("/engines/a/unload", json={"timeout_s": 0})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "engine_busy")
    request.leave()
    await task
    await registry.close(drain_s=0)


@pytest.mark.parametrize("path", ["load", "unload"])
async def test_an_unknown_engine_is_neither_loaded_nor_unloaded(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(f"/engines/x/{path}")).status_code == 404
    assert (await client.get("/engines/x/estimate")).status_code == 404


async def test_an_engine_is_replaced_or_added(client: httpx.AsyncClient, gguf: str) -> None:
    added = await client.put("/engines/a", json={"model_path": gguf})
    assert (added.status_code, added.json()["message"]) == (201, "Engine added successfully")
    pid = (await client.get("/engines/a")).json()["worker_pid"]
    replaced = await client.put(
        "/v1/engines/a", json={"engine_id": "a", "model_path": gguf, "n_ctx": 512, "pin": True}
    )
    assert (replaced.status_code, replaced.json()["loading_parameters"]["n_ctx"]) == (200, 512)
    assert replaced.json()["message"] == "Engine replaced successfully"
    shown = (await client.get("/engines/a")).json()
    assert (shown["pin"], shown["state"], shown["expires_in_s"]) == (True, "ready", None)
    assert shown["worker_pid"] not in (None, pid)
    assert (await client.get("/engines")).json()["total_count"] == 1


@pytest.mark.parametrize(
    ("method", "path", "fields", "param"),
    [
        ("PUT", "/engines/a", {"engine_id": "b"}, "engine_id"),
        ("PUT", "/engines/a", {"model_id": "b"}, "engine_id"),
        ("PUT", "/engines/a%5Cb", {}, "engine_id"),
        ("PUT", "/engines/a", {"model_path": None}, "model_path"),
        ("POST", "/engines/estimate", {"model_path": None}, "model_path"),
        ("POST", "/engines/estimate", {"draft_model_path": "/no/such.gguf"}, "draft_model_path"),
    ],
)
async def test_a_bad_field_is_named(
    client: httpx.AsyncClient, gguf: str, method: str, path: str, fields: dict[str, Any], param: str
) -> None:
    response = await client.request(method, path, json={"model_path": gguf} | fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert (await client.get("/engines")).json()["total_count"] == 0


async def test_what_an_engine_would_take_is_told_without_loading(fake_worker: Command, gguf: str) -> None:
    memory = MachineMemory(8 << 30, 4 << 30)
    registry = EngineRegistry(fake_worker(), sizes=FileSizes(lambda: memory))
    async with http_client(create_app(Settings(), registry)) as client:
        told = (
            await client.post(
                "/engines/estimate", json={"model_path": gguf, "n_ctx": 1024, "cache_host_bytes": 0}
            )
        ).json()
        assert (told["fits"], told["can_fit"], told["unloads"], told["kv_pool_tokens"]) == (
            True,
            True,
            [],
            4096,
        )
        # keys and values of 4096 cells and a quarter, 2 layers, 2 heads of 16 values and 2 bytes each
        assert (told["host"]["kv_cache"], told["least"]["host"]["kv_cache"]) == (5 * 2**18, 2**18)
        assert told["host"]["weights"] == told["host"]["mapped"] == 12_800 + 16_384 + 8192 + 12_800
        assert told["host"]["total"] == sum(
            told["host"][name] for name in ("weights", "kv_cache", "compute", "process")
        )
        assert told["machine"]["host"] == {"total": 8 << 30, "free": 4 << 30}
        assert (await client.get("/engines")).json()["total_count"] == 0

        big = {"model_path": gguf, "n_ctx": 1_000_000, "n_parallel": 64}
        assert (await client.post("/engines/estimate", json=big)).json()["fits"]  # with fewer cells
        refused = await client.post("/engines", json=big | {"engine_id": "big", "kv_pool_tokens": 64_000_000})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "insufficient_memory")
        assert int(refused.headers["retry-after"]) > 0
        assert "needs " in refused.json()["error"]["message"]
        await client.post("/engines", json={"engine_id": "a", "model_path": gguf, "n_ctx": 1024})
        held = (await client.get("/engines/a")).json()["memory"]["host"]
        shown = (await client.get("/engines/a/estimate")).json()
        assert shown["fits"]
        assert held > 0
    await registry.close(drain_s=0)


async def test_a_damaged_file_is_a_400_and_no_process(fake_worker: Command, tmp_path: Path) -> None:
    registry = EngineRegistry(WorkerCommand(("/no/such/program",)))
    async with http_client(create_app(Settings(), registry)) as client:
        for number, data in enumerate([*dict(corrupt()).values()][::10]):
            path = tmp_path / f"{number}.gguf"
            path.write_bytes(data)
            for method, where in (("POST", "/engines"), ("PUT", "/engines/a"), ("POST", "/engines/estimate")):
                response = await client.request(
                    method, where, json={"engine_id": "a", "model_path": str(path)}
                )
                error = response.json()["error"]
                assert (response.status_code, error["param"]) == (400, "model_path")
                assert error["code"] == "invalid_model_format"
        assert (await client.get("/engines")).json()["total_count"] == 0


async def test_rules_change_without_a_load(client: httpx.AsyncClient, gguf: str) -> None:
    await client.post("/engines", json={"engine_id": "a", "model_path": gguf})
    worker = (await client.get("/engines/a")).json()["worker_pid"]
    changed = (await client.patch("/engines/a", json={"pin": True, "max_queued": 7})).json()
    assert (changed["pin"], changed["max_queued"], changed["worker_pid"]) == (True, 7, worker)
    again = (await client.patch("/v1/engines/a", json={"idle_ttl_s": 60})).json()
    assert (again["pin"], again["idle_ttl_s"], again["max_queued"]) == (True, 60, 7)
    assert (await client.patch("/engines/a", json={"n_ctx": 512})).status_code == 400
    assert (await client.patch("/engines/b", json={"pin": True})).status_code == 404


async def test_what_an_engine_was_added_with_gives_it_again(client: httpx.AsyncClient, gguf: str) -> None:
    own = {"n_ctx": 256, "n_batch": 64, "n_gpu_layers": 0}
    await client.post(
        "/engines", json={"engine_id": "a", "model_path": gguf, "idle_ttl_s": 60, "pin": True, **own}
    )
    asked = (await client.get("/engines/a")).json()["asked"]
    assert asked["loading_parameters"] == own
    assert (asked["pin"], asked["idle_ttl_s"], asked["max_queued"]) == (True, 60, None)
    assert (await client.put("/engines/a", json=asked)).status_code == 200
    assert (await client.get("/engines/a")).json()["asked"] == asked


async def test_all_about_all_engines_at_once(client: httpx.AsyncClient, gguf: str) -> None:
    for name, load in (("a", True), ("b", False)):
        body = {"engine_id": name, "model_path": gguf, "load_immediately": load}
        await client.post("/engines", json=body)
    rows = (await client.get("/engines?details=true")).json()["engines"]
    assert rows == [
        (await client.get(f"/engines/{name}")).json() | moving(rows[n]) for n, name in enumerate("ab")
    ]
    resident = (await client.get("/engines?details=true&resident=true")).json()
    assert ([row["engine_id"] for row in resident["engines"]], resident["total_count"]) == (["a"], 2)


def moving(row: dict[str, Any]) -> dict[str, Any]:
    """What is another a moment later."""
    return {"expires_in_s": row["expires_in_s"]}


async def test_a_window_beyond_what_the_model_was_trained_for_is_a_warning(
    client: httpx.AsyncClient, gguf: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"engine_id": "a", "model_path": gguf}
    trained_for = (await client.post("/engines", json=body)).json()["loading_parameters"]["n_ctx"]
    [told] = (await client.put("/engines/a", json=body | {"n_ctx": 999_999})).json()["warnings"]
    assert told.startswith("n_ctx is 999999, but the model was trained for ")
    assert (await client.get("/engines/a")).json()["warnings"] == [told]
    assert told in [getattr(record, "reason", "") for record in caplog.records]
    assert trained_for < 999_999
