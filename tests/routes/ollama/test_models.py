"""Listing, copying and removing models."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.engines.memory.machine import Gpu, MachineMemory
from kolosal.engines.memory.placement import DeviceMemory, Estimate
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from kolosal.models.names import parameter_size
from kolosal.routes.ollama.models import FOR_EVER
from kolosal.routes.ollama.show import quantization
from tests.engines.helpers import config
from tests.engines.memory.test_load_scheduler import READY, Clock, FakeSizes, begin, registry_of
from tests.fakes import FakeEngine, app_with, http_client
from tests.routes.common.test_access import ADMIN, USER, app_with_keys
from tests.routes.ollama.asking import loaded_engine, refused
from tests.tiny_gguf import N_CTX_TRAIN, write_tiny_gguf


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


async def test_many_same_digest(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf")
    engines = [FakeEngine("a"), FakeEngine("b"), FakeEngine("c")]
    for engine, n_ctx in zip(engines, (128, 128, 256), strict=True):
        engine.config = EngineConfig(
            engine.engine_id, str(tmp_path / "m.gguf"), LoadingParameters(n_ctx=n_ctx)
        )
    async with http_client(app_with(*engines)) as client:
        rows = (await client.get("/api/tags")).json()["models"]
        again = (await client.get("/api/tags")).json()["models"]
    assert len({row["digest"] for row in rows}) == 3
    assert rows == again


async def test_O03_a_model_that_was_never_loaded_tells_what_its_file_says(tmp_path: Path) -> None:
    template = "{# " + "x" * 5000 + " #}{{ messages[0].content }}"
    write_tiny_gguf(tmp_path / "m.gguf", chat_template=template)
    engine = FakeEngine()
    engine.config = EngineConfig("fake", str(tmp_path / "m.gguf"), LoadingParameters(n_ctx=128))
    engine.state = EngineState.UNLOADED
    async with http_client(app_with(engine)) as client:
        [row] = (await client.get("/api/tags")).json()["models"]
        shown = (await client.post("/api/show", json={"model": "fake"})).json()
        whole = (await client.post("/api/show", json={"model": "fake", "verbose": True})).json()
    assert row["details"] == shown["details"]
    assert (row["details"]["family"], row["details"]["quantization_level"]) == ("llama", "F32")
    assert row["details"]["parameter_size"] == parameter_size(shown["model_info"]["general.parameter_count"])
    assert shown["model_info"]["llama.context_length"] == N_CTX_TRAIN
    assert shown["model_info"]["tokenizer.ggml.tokens"] == []
    assert shown["model_info"]["tokenizer.ggml.scores"] == []
    assert len(whole["model_info"]["tokenizer.ggml.scores"]) == 261
    assert not shown["model_info"].keys() & {"general.name", "tokenizer.chat_template"}
    assert (shown["template"], shown["capabilities"]) == (template, ["completion", "tools"])
    assert shown["parameters"].split() == ["num_ctx", "128"]
    assert engine.state is EngineState.UNLOADED


async def test_where_a_file_is_only_admins_are_told() -> None:
    app = app_with_keys(FakeEngine())
    shown = []
    async with http_client(app) as client:
        for key in (USER, ADMIN):
            answer = await client.post("/api/show", json={"model": "fake"}, headers={"x-api-key": key})
            shown.append(answer.json()["modelfile"].splitlines()[0])
    assert shown == ["FROM fake.gguf", "FROM /models/fake.gguf"]


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


class OneGpu(FakeSizes):
    """A machine with a GPU."""

    async def memory(self) -> MachineMemory:
        return MachineMemory(1 << 40, 1 << 40, (Gpu(0, "GPU", 1 << 40, 1 << 40),))


class TestExpiry:
    """`expires_at`, over engines whose memory is accounted for."""

    @staticmethod
    async def seconds(registry: EngineRegistry) -> dict[str, float]:
        """Seconds until each engine goes, as it is told."""
        async with http_client(create_app(Settings(), registry)) as client:
            rows = (await client.get("/api/ps")).json()["models"]
        now = datetime.now(UTC)
        return {
            row["name"]: (datetime.fromisoformat(row["expires_at"]) - now).total_seconds() for row in rows
        }

    async def test_it_is_when_an_idle_engine_is_unloaded(self) -> None:
        clock = Clock()
        async with registry_of(READY, "a", clock=clock) as registry:
            await registry.acquire("a")
            clock.now += 100
            assert (await self.seconds(registry))["a"] == pytest.approx(200, abs=5)

    async def test_what_a_request_asked_for_counts(self) -> None:
        async with registry_of(READY, "a", "b") as registry:
            (await registry.acquire("a")).keep_alive(3600)
            (await registry.acquire("b")).keep_alive(-1)
            found = await self.seconds(registry)
        assert found["a"] == pytest.approx(3600, abs=5)
        assert found["b"] > 9e9
        assert list(found) == ["b", "a"]  # who stays longest comes first

    async def test_a_pinned_engine_stays(self) -> None:
        async with registry_of(READY, "a", rules=Rules(pin=True)) as registry:
            await registry.acquire("a")
            async with http_client(create_app(Settings(), registry)) as client:
                [row] = (await client.get("/api/ps")).json()["models"]
        assert row["expires_at"] == FOR_EVER

    async def test_while_it_is_in_use_its_time_has_not_begun(self) -> None:
        clock = Clock()
        async with registry_of(READY, "a", clock=clock) as registry:
            stream = begin(await registry.acquire("a"))
            clock.now += 1000
            assert (await self.seconds(registry))["a"] == pytest.approx(300, abs=5)
            stream.abort()

    async def test_sizes_are_those_of_the_books(self) -> None:
        part = DeviceMemory(weights=5, kv_cache=3, compute=2)
        whole = Estimate(DeviceMemory(weights=5, compute=2), {0: DeviceMemory(weights=7, kv_cache=3)})
        sizes = OneGpu({"a": Estimate(part, {0: DeviceMemory(weights=7)}), "b": Estimate(part), "c": whole})
        registry = EngineRegistry(READY, sizes=sizes)
        try:
            for name in ("a", "b", "c"):
                await registry.add(config(name), load=True)
            async with http_client(create_app(Settings(), registry)) as client:
                rows = (await client.get("/api/ps")).json()["models"]
        finally:
            await registry.close(drain_s=0)
        assert {row["name"]: (row["size"], row["size_vram"]) for row in rows} == {
            "a": (17, 7),
            "b": (10, 0),
            "c": (17, 17),  # all layers are on the GPU
        }


@pytest.mark.parametrize("key", ["model", "name"])
async def test_a_deleted_model_is_gone(key: str) -> None:
    async with http_client(app_with(FakeEngine())) as client:
        deleted = await client.request("DELETE", "/api/delete", json={key: "fake"})
        again = await client.request("DELETE", "/api/delete", json={key: "fake"})
    assert (deleted.status_code, deleted.content) == (200, b"")
    assert (again.status_code, again.json()) == (404, {"error": "model 'fake' not found"})


@pytest.mark.parametrize("path", ["/api/push"])
async def test_what_is_not_here_says_so(path: str) -> None:
    status, error = await refused(FakeEngine(), path)
    assert (status, error.split()[0]) == (501, path)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/copy", {"source": "fake"}), ("/api/copy", {"source": "", "destination": "x"}),
        ("/api/copy", {"source": "fake", "destination": "a/../b"}), ("/api/show", {"model": 5}),
    ],
)  # fmt: skip
async def test_a_bad_name_is_refused(path: str, fields: dict[str, object]) -> None:
    status, _ = await refused(FakeEngine(), path, **fields)
    assert status == 400


async def test_a_configured_default_engine_stands_in() -> None:
    async with http_client(app_with(FakeEngine(), default_engine="fake")) as client:
        assert (await client.post("/api/show", json={})).status_code == 200
        assert (await client.post("/api/generate", json={})).json()["done_reason"] == "load"
