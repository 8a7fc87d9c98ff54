"""Parameters that a model cannot be loaded with: refused by name, before anything is unloaded or started for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kolosal.app import create_app
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.memory.loadable import check_gpus, check_loadable
from kolosal.engines.memory.model_files import read_shape
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.parameters import EngineConfig, FlashAttention, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.state import EngineState
from kolosal.errors import LoadFailed
from tests.engines.helpers import config
from tests.fakes import http_client
from tests.gguf_files import gguf
from tests.settings import settings_of

FakeWorker = Callable[..., WorkerCommand]


@pytest.fixture
def shape(tmp_path: Path) -> ModelShape:
    (tmp_path / "a.gguf").write_bytes(gguf())
    return replace(read_shape(tmp_path / "a.gguf"), key_width=64, value_width=64, n_vocab=100)


@pytest.mark.parametrize(
    ("given", "changed", "param"),
    [
        ({"cache_type_v": "q4_0", "flash_attn": "off"}, {}, "cache_type_v"),
        ({"cache_type_v": "iq4_nl", "flash_attn": "off"}, {}, "cache_type_v"),
        ({"cache_type_k": "q8_0"}, {"key_width": 80}, "cache_type_k"),
        ({"cache_type_k": "q8_0", "flash_attn": "off"}, {"key_width": 80}, "cache_type_k"),
        ({"cache_type_v": "q8_0"}, {"value_width": 16}, "cache_type_v"),
    ],
)
def test_what_no_memory_would_help(
    shape: ModelShape, given: dict[str, Any], changed: dict[str, Any], param: str
) -> None:
    with pytest.raises(LoadFailed) as error:
        check_loadable(replace(shape, **changed), config("a", **given).parameters)
    assert error.value.param == param
    assert param in error.value.message


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q4_0", "iq4_nl"])
@pytest.mark.parametrize("flash_attn", [*FlashAttention])
def test_keys_may_be_quantised_and_values_with_flash_attention(
    shape: ModelShape, kind: Any, flash_attn: FlashAttention
) -> None:
    check_loadable(shape, LoadingParameters(cache_type_k=kind, flash_attn=flash_attn))
    if flash_attn is not FlashAttention.OFF:
        check_loadable(shape, LoadingParameters(cache_type_v=kind, flash_attn=flash_attn))


def test_a_draft_model_of_another_kind(shape: ModelShape) -> None:
    check_loadable(shape, LoadingParameters(), shape)
    for other in (replace(shape, n_vocab=99), replace(shape, window=16), replace(shape, state_values=4)):
        with pytest.raises(LoadFailed) as error:
            check_loadable(shape, LoadingParameters(), other)
        assert error.value.param == "draft_model_path"


def test_gpus_that_are_not_there() -> None:
    check_gpus(LoadingParameters(main_gpu_id=3, tensor_split=(1.0,) * 4), 4)
    check_gpus(LoadingParameters(main_gpu_id=3), 0)  # none that we know of
    check_gpus(LoadingParameters(main_gpu_id=3, n_gpu_layers=0), 1)
    for parameters in (
        LoadingParameters(main_gpu_id=4),
        LoadingParameters(tensor_split=(1.0,) * 5),
        LoadingParameters(override_tensor="a=CUDA4"),
    ):
        with pytest.raises(LoadFailed):
            check_gpus(parameters, 4)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("ffn", "must be PATTERN=BUFFER"), ("a=CPU,,b=CPU", "must be PATTERN=BUFFER"), ("=CPU", "must be PATTERN=BUFFER"),
        ("(=CPU", "is no regular expression"), ("(a+)+=CPU", "must not repeat a group"),
        ("(a|a){2}=CPU", "must not repeat a group"), ("(?=a)=CPU", "must not repeat a group"),
        ("a*b*c*d*=CPU", "repeats more than 3"), (",".join(["a=CPU"] * 65), "has 65 patterns"),
    ],
)  # fmt: skip
def test_overrides_that_cannot_be_searched_for(shape: ModelShape, override: str, reason: str) -> None:
    with pytest.raises(LoadFailed, match=re.escape(reason)) as error:
        check_loadable(shape, LoadingParameters(override_tensor=override))
    assert error.value.param == "override_tensor"


@pytest.mark.parametrize(
    "override", ["", r"\.(1[0-9]|2\d)\.ffn_.*_exps\.=CPU", r"a\)+[)*+]=CUDA1", ",".join(["a=CPU"] * 64)]
)
def test_overrides_as_people_write_them(shape: ModelShape, override: str) -> None:
    check_loadable(shape, LoadingParameters(override_tensor=override))
    check_gpus(LoadingParameters(override_tensor=override), 2)


async def test_kv_params_is_a_422_and_idle_engines_stay(tmp_path: Path, fake_worker: FakeWorker) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf())
    registry = EngineRegistry(fake_worker())
    for name in ("one", "two"):
        await registry.add(config(name), load=True)
    body = {
        "engine_id": "x",
        "model_path": str(tmp_path / "a.gguf"),
        "cache_type_v": "q4_0",
        "flash_attn": "off",
    }
    async with http_client(create_app(settings_of(access_log=False), registry)) as client:
        refused = await client.post("/engines", json=body)
        lazily = await client.post("/engines", json=body | {"load_immediately": False})
    states = {engine.engine_id: engine.state for engine in registry.list()}
    await registry.close(drain_s=0)

    assert (refused.status_code, lazily.status_code) == (422, 422)
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("model_loading_failed", "cache_type_v")
    assert "needs flash attention" in error["message"]
    assert states == {"one": EngineState.READY, "two": EngineState.READY}


async def test_what_only_llama_cpp_knows_is_no_lack_of_memory_either(
    real_worker: WorkerCommand, tiny_gguf: Path
) -> None:
    """Nobody looked at the file before its worker did."""
    registry = EngineRegistry(real_worker)
    small = LoadingParameters(n_ctx=64, n_parallel=1, n_threads=1)
    await registry.add(EngineConfig("idle", str(tiny_gguf), small), load=True)
    wrong = replace(small, cache_type_v="q4_0", flash_attn=FlashAttention.OFF)
    with pytest.raises(LoadFailed, match="quantized V cache requires flash_attn") as error:
        await registry.add(EngineConfig("x", str(tiny_gguf), wrong), load=True)
    state = registry.get("idle").state
    await registry.close(drain_s=0)
    assert not error.value.lacked_memory
    assert state is EngineState.READY
