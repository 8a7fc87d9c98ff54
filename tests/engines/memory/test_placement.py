"""Estimates of memory: by hand where they can be counted, and against what real workers take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.memory.limits import MemoryKind
from kolosal.engines.memory.model_files import read_shape
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.memory.placement import Estimate, estimate
from kolosal.engines.parameters import FittedParameters, FlashAttention, SplitMode
from tests.engines.helpers import config
from tests.engines.memory.real_models import REAL_MODELS
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

CPU = FittedParameters(n_gpu_layers=0, n_ctx=1024, n_parallel=1)
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
    assert (shape.key_width, shape.value_width, shape.tied, shape.memory_kind) == (
        16,
        16,
        False,
        MemoryKind(),
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
    assert shape.memory_kind == MemoryKind(windows=any(windowed))


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
    whole = estimate(shape, FittedParameters(**parameters), gpus)  # type: ignore[arg-type]
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
    small = FittedParameters(
        n_gpu_layers=0, n_ctx=1000, n_parallel=1, cache_type_k="q8_0", cache_type_v="f32"
    )
    assert estimate(shape, small).host.kv_cache == int(1024 * 2 * 16 * (34 / 32 + 4)) * 2
    windowed = shape_of(
        file,
        llama__attention__sliding_window=(UINT32, 10),
        llama__attention__sliding_window_pattern=(UINT32, 2),
    )
    full = FittedParameters(n_gpu_layers=0, n_ctx=10_240, n_parallel=1, n_ubatch=256, cache_prompt=False)
    assert estimate(windowed, full).host.kv_cache == 2 * 10_240 * 2 * 16 * 2 * 2
    one_slot = replace(full, swa_full=False)
    assert estimate(windowed, one_slot).host.kv_cache == (512 + 10_240) * 2 * 16 * 2 * 2


@pytest.mark.parametrize(
    ("n_parallel", "n_ctx", "n_apart"),
    [(1, 1024, 0), (4, 1024, 1024), (2, 2048, 1024), (4, 200, 0), (4, 32_768, 16_384)],
)
def test_cells_of_the_prefill_context_are_counted(
    file: Path, n_parallel: int, n_ctx: int, n_apart: int
) -> None:
    shape = shape_of(file)
    parameters = FittedParameters(n_gpu_layers=0, n_ctx=n_ctx, n_parallel=n_parallel)
    n_cells = -(-n_ctx * n_parallel // 256) * 256 + n_apart
    assert estimate(shape, parameters).host.kv_cache == n_cells * 2 * 2 * 16 * 2 * 2
    assert (
        estimate(shape, parameters, cells=n_ctx).host.kv_cache == -(-n_ctx // 256) * 256 * 2 * 2 * 16 * 2 * 2
    )
    on_gpu = estimate(shape, FittedParameters(n_ctx=n_ctx, n_parallel=n_parallel), ONE_GPU)
    assert on_gpu.host.kv_cache == 0


def test_without_flash_attention_a_step_needs_more(file: Path) -> None:
    shape = shape_of(file)
    off = FittedParameters(n_gpu_layers=0, n_ctx=1024, n_parallel=1, flash_attn=FlashAttention.OFF)
    assert estimate(shape, off).host.compute > estimate(shape, CPU).host.compute


def test_nothing_is_mapped_where_the_file_is_read(file: Path) -> None:
    shape = shape_of(file)
    assert estimate(shape, CPU).mapped == weight_bytes(shape)
    assert estimate(shape, FittedParameters(use_mmap=False)).mapped == 0


EXPERTS = "qwen3-30b-a3b"


def test_experts_of_the_first_layers_may_stay_on_the_host() -> None:
    shape = next(model.shape() for model in REAL_MODELS if model.name == EXPERTS)
    whole, fewer = (
        estimate(shape, FittedParameters(n_cpu_moe=count), {0: 2**40, 1: 2**40}) for count in (0, 5)
    )
    experts = sum(layer.expert_bytes for layer in shape.layers[:5])
    assert experts == sum(n for name, n in shape.tensors.items() if re.match(r"blk\.[0-4]\..*_exps", name))
    assert fewer.host.weights - whole.host.weights == experts
    assert sum(part.weights for part in fewer.gpus.values()) == weight_bytes(shape) - fewer.host.weights


@pytest.mark.parametrize(
    ("override", "on_host", "on_gpu_1"),
    [
        ("ffn_.*_exps=CPU", lambda name: "_exps" in name, None),
        (r"blk\.1\.=CUDA1,exps=CPU", lambda name: "_exps" in name and "blk.1." not in name, "blk.1."),
        ("token_embd=CPU,output=CUDA1", lambda _: False, "output.weight"),
        ("attn_q=Vulkan9", lambda _: False, None),
    ],
)
def test_overridden_tensors_lie_where_they_are_told(
    override: str, on_host: Callable[[str], bool], on_gpu_1: str | None
) -> None:
    shape = next(model.shape() for model in REAL_MODELS if model.name == EXPERTS)
    parameters = FittedParameters(override_tensor=override, split_mode=SplitMode.NONE)
    placed = estimate(shape, parameters, {0: 2**40, 1: 2**40})
    moved = sum(n for name, n in shape.tensors.items() if on_host(name))
    assert placed.host.weights == shape.input_bytes + moved
    elsewhere = sum(n for name, n in shape.tensors.items() if on_gpu_1 is not None and on_gpu_1 in name)
    assert (placed.gpus[1].weights if 1 in placed.gpus else 0) == elsewhere
    assert placed.host.weights + sum(part.weights for part in placed.gpus.values()) == weight_bytes(shape)


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
    parameters = FittedParameters(n_gpu_layers=layers, n_ctx=n_ctx, tensor_split=tuple(shares))
    whole = estimate(shape, parameters, dict(enumerate(gpus)))
    assert whole.host.weights + sum(part.weights for part in whole.gpus.values()) == weight_bytes(shape)
    assert set(whole.gpus) <= set(range(len(gpus)))
    more = estimate(
        shape, FittedParameters(n_gpu_layers=layers, n_ctx=n_ctx + 1000, tensor_split=tuple(shares))
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
