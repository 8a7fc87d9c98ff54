"""The table of tensor types, against the format's own package."""

from __future__ import annotations

from typing import get_args

import pytest

from kolosal.engines.memory.ggml import GGML_TYPES, cache_type
from kolosal.engines.parameters import CacheType


def test_numbers_names_and_sizes_are_those_of_the_format() -> None:
    gguf = pytest.importorskip("gguf")
    known = {(int(kind), kind.name.lower(), *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    newer = {(42, "q2_0", 64, 18)}  # which llama.cpp has and the package not yet
    assert {tuple(kind) for kind in GGML_TYPES.values()} == known | newer


@pytest.mark.parametrize("name", get_args(CacheType))
def test_every_cache_type_has_a_tensor_type(name: CacheType) -> None:
    assert cache_type(name).name == name
