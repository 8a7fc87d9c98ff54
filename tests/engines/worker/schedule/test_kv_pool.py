from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.memory.limits import HOST_RESERVE_BYTES
from kolosal.engines.parameters import FittedParameters
from kolosal.engines.worker.schedule.kv_pool import kv_bytes_per_cell, pool_sizes

GIB = 1024**3
LLAMA: dict[str, str | None] = {
    "general.architecture": "llama",
    "llama.block_count": "10",
    "llama.attention.head_count": "8",
    "llama.attention.head_count_kv": "2",
    "llama.embedding_length": "512",
}


def bytes_per_cell(
    parameters: FittedParameters | None = None, metadata: Mapping[str, str | None] = MappingProxyType({})
) -> int | None:
    changed = LLAMA | dict(metadata)
    return kv_bytes_per_cell(changed.get, parameters or FittedParameters())


def test_cell_holds_keys_and_values_of_all_layers() -> None:
    assert bytes_per_cell() == 10 * 2 * (64 + 64) * 2


def test_cell_counts_all_heads_where_none_are_shared() -> None:
    assert bytes_per_cell(metadata={"llama.attention.head_count_kv": None}) == 10 * 8 * (64 + 64) * 2


def test_cell_uses_the_lengths_the_model_states() -> None:
    stated = {"llama.attention.key_length": "96", "llama.attention.value_length": "32"}

    assert bytes_per_cell(metadata=stated) == 10 * 2 * (96 + 32) * 2


def test_cell_counts_the_cache_types() -> None:
    parameters = FittedParameters(cache_type_k="q8_0", cache_type_v="f32")

    assert bytes_per_cell(parameters) == 10 * 2 * (64 * 34 / 32 + 64 * 4)


@pytest.mark.parametrize("name", ["general.architecture", "llama.block_count", "llama.embedding_length"])
@pytest.mark.parametrize("value", [None, "", "[8, 8]", "-1", "0", "1e9"])
def test_cell_is_unknown_where_the_metadata_is(name: str, value: str | None) -> None:
    assert bytes_per_cell(metadata={name: value}) is None


def test_pool_holds_all_windows_where_memory_is_ample() -> None:
    assert next(pool_sizes(FittedParameters(n_ctx=1000, n_parallel=4), 100, 100 * GIB)) == 4000


def test_pool_holds_all_windows_where_memory_is_unknown() -> None:
    assert next(pool_sizes(FittedParameters(n_ctx=1000, n_parallel=4), 100, None)) == 4000


def test_pool_is_cut_to_the_free_memory() -> None:
    first = next(pool_sizes(FittedParameters(n_ctx=1024, n_parallel=4), 1024 * 1024, 3 * GIB))

    assert first * 1024 * 1024 <= 3 * GIB - HOST_RESERVE_BYTES < (first + 256) * 1024 * 1024


def test_one_window_is_tried_even_where_it_does_not_seem_to_fit() -> None:
    assert [*pool_sizes(FittedParameters(n_ctx=1024), 1024 * 1024, 0)] == [1024]


def test_explicit_pool_is_tried_alone() -> None:
    assert [*pool_sizes(FittedParameters(n_ctx=1024, kv_pool_tokens=5000), 1024, 0)] == [5000]


@given(
    n_ctx=st.integers(1, 10_000),
    n_parallel=st.integers(1, 256),
    cell=st.none() | st.integers(1, 10_000_000),
    free=st.none() | st.integers(0, 1000 * GIB),
)
def test_pools_shrink_to_one_window(n_ctx: int, n_parallel: int, cell: int | None, free: int | None) -> None:
    sizes = [*pool_sizes(FittedParameters(n_ctx=n_ctx, n_parallel=n_parallel), cell, free)]

    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] == n_ctx
