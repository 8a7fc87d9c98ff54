"""What the daemon promises by estimate is what the worker takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.memory.limits import HOST_RESERVE_BYTES
from kolosal.engines.memory.model_shape import Layer, ModelShape
from kolosal.engines.memory.placement import estimate
from kolosal.engines.parameters import FittedParameters
from kolosal.engines.worker.schedule.kv_pool import kv_bytes_per_cell, pool_sizes

N_LAYERS, WIDTH, HEADS = 16, 1024, 8
SHAPE = ModelShape(
    architecture="llama", layers=(Layer(50_000_000, HEADS, windowed=False),) * N_LAYERS, input_bytes=1_000_000,
    output_bytes=1_000_000, tied=True, n_params=0, n_embd=WIDTH, n_heads=HEADS, n_ff=4096, n_vocab=32_000,
    key_width=WIDTH // HEADS, value_width=WIDTH // HEADS, window=0, state_values=0,
)  # fmt: skip
METADATA = {
    "general.architecture": "llama", "llama.block_count": str(N_LAYERS), "llama.embedding_length": str(WIDTH),
    "llama.attention.head_count": str(HEADS),
}  # fmt: skip


@given(n_ctx=st.integers(1, 200).map(lambda n: n * 256), n_parallel=st.integers(1, 16))
def test_a_whole_cache_that_fits_by_estimate_is_taken_whole(n_ctx: int, n_parallel: int) -> None:
    """The reserves once differed (256 and 512 MiB): what the daemon had found room for, the worker cut."""
    parameters = FittedParameters(n_ctx=n_ctx, n_parallel=n_parallel)
    host = estimate(SHAPE, parameters).host
    free = HOST_RESERVE_BYTES + host.total  # just enough for the daemon to load it
    left = free - host.weights - host.process  # what the worker sees once its weights are loaded
    assert (
        next(pool_sizes(parameters, kv_bytes_per_cell(METADATA.get, parameters), left)) == n_ctx * n_parallel
    )


@pytest.mark.parametrize("page", ["engines.md"])
def test_the_reserve_is_the_documented_one(page: str) -> None:
    text = (Path(__file__).parents[3] / "docs" / "api" / page).read_text(encoding="utf-8")
    assert f"less {HOST_RESERVE_BYTES >> 20} MiB" in text
