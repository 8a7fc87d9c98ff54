"""Estimates of memory: by hand where they can be counted, and against what real workers take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.memory.model_files import read_shape
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.memory.placement import Estimate, estimate, estimates
from kolosal.engines.parameters import FlashAttention, LoadingParameters, SplitMode
from tests.engines.helpers import config
from tests.engines.worker.helpers import ask
from tests.gguf_files import (
    ARRAY,
    BOOL,
    FLOAT32,
    LLAMA,
    STRING,
    TENSORS,
    UINT32,
    Tensor,
    Typed,
    gguf,
    weight_bytes,
)
from tests.tiny_gguf import Architecture, write_tiny_gguf

TOLERANCE = 0.25
"""How far an estimate may be from what a worker takes."""

CPU = LoadingParameters(n_gpu_layers=0, n_ctx=1024, n_parallel=1)
GPUS = {0: 100, 1: 300}
ONE_GPU = {0: 100}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def shape_of(file: Path, tensors: tuple[Tensor, ...] = TENSORS, **metadata: Typed) -> ModelShape:
    """The shape of a small llama with other metadata; `_` in names stands for a dot."""
    file.write_bytes(
        gguf({**LLAMA, **{name.replace("__", "."): value for name, value in metadata.items()}}, tensors)
    )
    return read_shape(file)


# --- shapes ---


def test_a_model_is_read_as_what_it_is(file: Path) -> None:
    shape = shape_of(file)
    assert (shape.architecture, shape.n_embd, shape.n_heads, shape.n_vocab) == ("llama", 64, 4, 50)
    assert (shape.key_width, shape.value_width, shape.tied, shape.has_plain_attention) == (
        16,
        16,
        False,
        True,
    )
    assert [(layer.weight_bytes, layer.kv_heads) for layer in shape.layers] == [(16_384, 2), (8192, 2)]
    assert (shape.input_bytes, shape.output_bytes, weight_bytes(shape)) == (12_800, 12_800, 50_176)


def test_heads_may_differ_from_layer_to_layer(file: Path) -> None:
    shape = shape_of(file, llama__attention__head_count_kv=(ARRAY, (UINT32, [1, 3])))
    assert [layer.kv_heads for layer in shape.layers] == [1, 3]


@pytest.mark.parametrize(
    ("pattern", "windowed"),
    [((ARRAY, (BOOL, [True, False])), [True, False]), ((UINT32, 2), [True, False]), (None, [False, False])],
)
def test_some_layers_see_a_window_only(file: Path, pattern: Typed | None, windowed: list[bool]) -> None:
    given: dict[str, Any] = {} if pattern is None else {"llama__attention__sliding_window_pattern": pattern}
    shape = shape_of(file, llama__attention__sliding_window=(UINT32, 256), **given)
    assert [layer.windowed for layer in shape.layers] == windowed
    assert shape.has_plain_attention == (not any(windowed))


@pytest.mark.parametrize(
    "value",
    [(STRING, "many"), (FLOAT32, 1e30), (UINT32, 2**32 - 1), (ARRAY, (UINT32, [])), (ARRAY, (STRING, ["a"]))],
)
@pytest.mark.parametrize(
    "name", ["block_count", "attention.head_count", "embedding_length", "feed_forward_length"]
)
def test_numbers_that_make_no_sense_are_done_without(file: Path, name: str, value: Typed) -> None:
    file.write_bytes(gguf({**LLAMA, f"llama.{name}": value}))
    assert estimate(read_shape(file), CPU).host.total < 2**31


# --- places ---


def places(shape: ModelShape, gpus: Mapping[int, int] = GPUS, **parameters: object) -> tuple[int, list[int]]:
    """Weights on the host and on each GPU."""
    whole = estimate(shape, LoadingParameters(**parameters), gpus)  # type: ignore[arg-type]
    return whole.host.weights, [whole.gpus[gpu].weights if gpu in whole.gpus else 0 for gpu in gpus]


def test_the_last_layers_go_to_the_gpu_first(file: Path) -> None:
    shape = shape_of(file)
    assert places(shape, ONE_GPU, n_gpu_layers=0) == (50_176, [0])
    assert places(shape, ONE_GPU, n_gpu_layers=1) == (37_376, [12_800])
    assert places(shape, ONE_GPU, n_gpu_layers=2) == (29_184, [20_992])
    assert places(shape, ONE_GPU, n_gpu_layers=-1) == (12_800, [37_376])
    assert places(shape, {}, n_gpu_layers=-1) == (50_176, [])


def test_layers_are_spread_by_shares_or_by_free_memory(file: Path) -> None:
    shape = shape_of(file)
    assert places(shape) == (12_800, [16_384, 20_992])
    assert places(shape, tensor_split=(1.0, 0.0)) == (12_800, [37_376, 0])
    assert places(shape, split_mode=SplitMode.NONE, main_gpu_id=1) == (12_800, [0, 37_376])
    assert places(shape, split_mode=SplitMode.NONE, main_gpu_id=-1) == (12_800, [37_376, 0])


def test_tied_embeddings_are_on_the_gpu_again(file: Path) -> None:
    shape = shape_of(file, TENSORS[:3])
    assert (shape.tied, weight_bytes(shape)) == (True, 37_376)
    assert places(shape, ONE_GPU) == (12_800, [37_376])
    assert places(shape, ONE_GPU, n_gpu_layers=0) == (37_376, [0])


def test_the_cache_is_counted_by_its_types_and_cells(file: Path) -> None:
    shape = shape_of(file)
    assert estimate(shape, CPU).host.kv_cache == 1024 * 2 * 2 * 16 * 2 * 2
    small = LoadingParameters(
        n_gpu_layers=0, n_ctx=1000, n_parallel=1, cache_type_k="q8_0", cache_type_v="f32"
    )
    assert estimate(shape, small).host.kv_cache == int(1024 * 2 * 16 * (34 / 32 + 4)) * 2
    windowed = shape_of(
        file,
        llama__attention__sliding_window=(UINT32, 10),
        llama__attention__sliding_window_pattern=(UINT32, 2),
    )
    one_slot = LoadingParameters(n_gpu_layers=0, n_ctx=10_240, n_parallel=1, n_ubatch=256, cache_prompt=False)
    assert estimate(windowed, one_slot).host.kv_cache == (512 + 10_240) * 2 * 16 * 2 * 2


def test_without_flash_attention_a_step_needs_more(file: Path) -> None:
    shape = shape_of(file)
    off = LoadingParameters(n_gpu_layers=0, n_ctx=1024, n_parallel=1, flash_attn=FlashAttention.OFF)
    assert estimate(shape, off).host.compute > estimate(shape, CPU).host.compute


def test_nothing_is_mapped_where_the_file_is_read(file: Path) -> None:
    shape = shape_of(file)
    assert estimate(shape, CPU).mapped == weight_bytes(shape)
    assert estimate(shape, LoadingParameters(use_mmap=False)).mapped == 0


def test_an_engine_can_live_with_the_cells_of_one_request(file: Path) -> None:
    shape = shape_of(file)
    wide, odd = LoadingParameters(n_ctx=512, n_parallel=4), LoadingParameters(n_ctx=500, n_parallel=3)
    assert [each.cells for each in estimates(shape, wide)] == [2048, 1024, 512]
    assert [each.cells for each in estimates(shape, odd)] == [1500, 512, 500]
    assert [each.cells for each in estimates(shape, LoadingParameters(n_ctx=512, kv_pool_tokens=900))] == [
        900
    ]


def test_a_draft_model_counts_too(file: Path, tmp_path: Path) -> None:
    shape = shape_of(file)
    both = estimate(shape, CPU, draft=shape_of(tmp_path / "draft.gguf", TENSORS[:2]))
    assert both.host.weights == weight_bytes(shape) + 12_800 + 16_384
    assert both.host.process == estimate(shape, CPU).host.process


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=st.integers(-1, 10),
    n_ctx=st.integers(1, 10_000),
    gpus=st.lists(st.integers(0, 100), max_size=3),
    shares=st.lists(st.floats(0, 10), max_size=4),
)
def test_all_weights_are_somewhere(
    file: Path, layers: int, n_ctx: int, gpus: list[int], shares: list[float]
) -> None:
    shape = shape_of(file)
    parameters = LoadingParameters(n_gpu_layers=layers, n_ctx=n_ctx, tensor_split=tuple(shares))
    whole = estimate(shape, parameters, dict(enumerate(gpus)))
    assert whole.host.weights + sum(part.weights for part in whole.gpus.values()) == weight_bytes(shape)
    assert set(whole.gpus) <= set(range(len(gpus)))
    more = estimate(
        shape, LoadingParameters(n_gpu_layers=layers, n_ctx=n_ctx + 1000, tensor_split=tuple(shares))
    )
    assert more.host.total >= estimate(shape, parameters).host.total


# --- real workers ---


def memory_of(worker: psutil.Process) -> int:
    """What a worker and the process that renders for it keep; pages that both map count once."""
    own: int = worker.memory_info().rss
    return own + sum(child.memory_full_info().uss for child in worker.children())


async def resident_bytes(command: WorkerCommand, path: Path, **parameters: Any) -> tuple[int, Estimate]:
    """What a worker that has answered keeps in memory or may fill unasked, and what was estimated before."""
    one = config(**parameters)
    engine = Engine(type(one)("test", str(path), one.parameters), command)
    try:
        await engine.ensure_ready()
        await engine.generate(ask("Hello world. " * 12, max_tokens=4)).collect()
        rss = await asyncio.to_thread(memory_of, psutil.Process(engine.worker_pid))
        unused = engine.released_bytes
    finally:
        await engine.close()
    estimated = estimate(read_shape(path), one.parameters)
    return rss + min(unused, estimated.host.kv_cache), estimated


@pytest.mark.model
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_ctx": 512, "n_parallel": 1},
        {"n_ctx": 2048, "cache_type_k": "q8_0"},
        {"n_ctx": 512, "use_mmap": False},
    ],
)
async def test_a_real_model_takes_about_what_was_estimated(
    real_worker: WorkerCommand, smollm2: Path, parameters: dict[str, object]
) -> None:
    rss, estimated = await resident_bytes(real_worker, smollm2, **parameters)
    assert estimated.host.total == pytest.approx(rss, rel=TOLERANCE)


@pytest.mark.model
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba"])
async def test_every_kind_of_memory_takes_about_what_was_estimated(
    real_worker: WorkerCommand, tmp_path: Path, architecture: Architecture
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, architecture)
    rss, estimated = await resident_bytes(real_worker, path, n_ctx=512)
    assert estimated.host.total == pytest.approx(rss, rel=TOLERANCE)
