"""Names that are like one that nobody has."""

from __future__ import annotations

import pytest

from kolosal.engines.names import did_you_mean, nearest, plain

NAMES = {
    plain(name): name
    for name in (
        "org/Tiny-Q8_0",
        "bartowski/Qwen3-8B-GGUF:Q4_K_M",
        "Qwen2.5-0.5B",
        "llama3.2:3b",
        "llama3.1",
        "phi",
    )
}


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("qwen3", "bartowski/Qwen3-8B-GGUF:Q4_K_M"),
        ("lama3.2", "llama3.2:3b"),
        ("LLAMA3.1:8b", "llama3.1"),
        ("tiny", "org/Tiny-Q8_0"),
        ("Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B"),
    ],
)
def test_the_nearest_name_comes_first(said: str, first: str) -> None:
    assert nearest(said, NAMES)[0] == first


@pytest.mark.parametrize("said", ["", "x", "nobody", "\0" * 9])
def test_a_name_like_none_suggests_none(said: str) -> None:
    assert did_you_mean(said, NAMES) == ""


def test_an_error_says_up_to_three() -> None:
    assert did_you_mean("ab", {}) == ""
    assert did_you_mean("abc", {"abd": "Abd"}) == "; did you mean 'Abd'?"
    many = {name: name for name in ("abca", "abcb", "abcc", "abcd")}
    assert did_you_mean("abc", many) == "; did you mean 'abca', 'abcb' or 'abcc'?"
