"""Values that llama.cpp believes and dies of: refused with the header, before any process is started."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from kolosal.engines.memory.model_files import read_headers
from kolosal.errors import ModelFileError
from tests.gguf_files import ARRAY, FLOAT32, INT32, LLAMA, STRING, UINT32, Typed, gguf

EPS = "llama.attention.layer_norm_rms_epsilon"
BASE = "llama.rope.freq_base"
SCALE = "llama.rope.scaling.factor"
BOS, PAD = "tokenizer.ggml.bos_token_id", "tokenizer.ggml.padding_token_id"
WORDS, SCORES = "tokenizer.ggml.tokens", "tokenizer.ggml.scores"


def read(file: Path, changes: dict[str, Typed]) -> None:
    file.write_bytes(gguf({**LLAMA, **changes}))
    read_headers(file)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        *((key, (FLOAT32, number), "finite") for key in (EPS, BASE, SCALE, "llama.logit_scale")
          for number in (math.nan, math.inf, -math.inf)),
        (EPS, (FLOAT32, -1e-5), "at least 0"), (EPS, (FLOAT32, 1.0), "less than 1"), (EPS, (STRING, "small"), "at least 0"),
        (BASE, (FLOAT32, 0.0), "greater than 0"), (BASE, (FLOAT32, -1.0), "greater than 0"),
        (SCALE, (FLOAT32, -2.0), "at least 0"),
        ("llama.rope.factors", (ARRAY, (FLOAT32, [1.0, math.nan])), "finite"),
        *((f"tokenizer.ggml.{name}_token_id", value, "0 to 49") for name in ("bos", "eos", "eot", "unknown", "fim_pre")
          for value in ((INT32, -1), (UINT32, 50), (UINT32, 2**32 - 1), (STRING, "1"))),
        (WORDS, (ARRAY, (STRING, [""] * 50)), "50 are empty"),
        (WORDS, (ARRAY, (STRING, [*map(str, range(20)), *[""] * 30])), "30 are empty"),
        (SCORES, (ARRAY, (FLOAT32, [0.0] * 49 + [math.nan])), "not finite"),
    ],
)  # fmt: skip
def test_a_value_that_no_model_can_have_is_refused_by_name(
    tmp_path: Path, key: str, value: Typed, says: str
) -> None:
    with pytest.raises(ModelFileError, match=says) as error:
        read(tmp_path / "a.gguf", {key: value})
    assert error.value.param == "model_path"
    assert key in error.value.message or key == WORDS


def test_long_arrays_of_scores_are_looked_at_too(tmp_path: Path) -> None:
    n = 70_000
    words: Typed = (ARRAY, (STRING, [f"{i}" for i in range(n)]))
    read(tmp_path / "a.gguf", {WORDS: words, SCORES: (ARRAY, (FLOAT32, [1.0] * n))})
    with pytest.raises(ModelFileError, match="not finite"):
        read(tmp_path / "a.gguf", {WORDS: words, SCORES: (ARRAY, (FLOAT32, [1.0] * (n - 1) + [math.inf]))})


def test_what_files_have_and_llama_cpp_lives_with_is_no_error(tmp_path: Path) -> None:
    some_empty: Typed = (ARRAY, (STRING, ["", *map(str, range(49))]))
    read(
        tmp_path / "a.gguf",
        {
            EPS: (FLOAT32, 0.0), BASE: (FLOAT32, 1e6), SCALE: (FLOAT32, 0.0), BOS: (UINT32, 0), PAD: (INT32, -1),
            WORDS: some_empty,
        },
    )  # fmt: skip
