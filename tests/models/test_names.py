"""Which model a name means, and what files are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.models.entry import LibraryModel
from kolosal.models.file_version import FileVersion
from kolosal.models.index import Index
from kolosal.models.names import split_quantization, usable


def model(name: str, file: str = "") -> LibraryModel:
    path = Path("/m") / (file or f"{name}.gguf")
    return LibraryModel(name, "folder", (FileVersion(path, 1, 1),), None)


NAMES = (
    "org/Tiny-Q8_0",
    "org/Tiny-Q4_K_M",
    "other/Small-Q4_K_M",
    "third/Small-Q4_K_M",
    "bartowski/Qwen3-8B-GGUF:Q5_K_M",
    "bartowski/Qwen3-8B-GGUF:Q4_K_M",
    "llama3.2:3b",
)
INDEX = Index([model(name) for name in NAMES])


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("org/Tiny-Q8_0", "org/Tiny-Q8_0"),
        ("ORG/tiny-q8_0:latest", "org/Tiny-Q8_0"),
        ("Tiny-Q8_0", "org/Tiny-Q8_0"),
        ("Tiny-Q8_0.gguf", "org/Tiny-Q8_0"),
        ("org/Tiny", "org/Tiny-Q4_K_M"),
        ("tiny", "org/Tiny-Q4_K_M"),
        ("Small-Q4_K_M", None),
        ("small", None),
        ("other/small", "other/Small-Q4_K_M"),
        ("bartowski/Qwen3-8B-GGUF", "bartowski/Qwen3-8B-GGUF:Q4_K_M"),
        ("hf.co/bartowski/Qwen3-8B-GGUF:Q5_K_M", "bartowski/Qwen3-8B-GGUF:Q5_K_M"),
        ("ollama:llama3.2:3b", "llama3.2:3b"),
        ("llama3.2", "llama3.2:3b"),
        ("", None),
        ("nothing", None),
    ],
)
def test_a_name_means_one_model_or_none(said: str, meant: str | None) -> None:
    found = INDEX.find(said)
    assert (None if found is None else found.name) == meant


@pytest.mark.parametrize(
    ("stem", "parts"),
    [
        ("Qwen3-8B-Q4_K_M", ("Qwen3-8B", "Q4_K_M")),
        ("SmolLM2-135M-Instruct.Q4_1", ("SmolLM2-135M-Instruct", "Q4_1")),
        ("m-UD-IQ2_XXS", ("m", "UD-IQ2_XXS")),
        ("m.f16", ("m", "F16")),
        ("gpt-oss-20b-mxfp4", ("gpt-oss-20b", "MXFP4")),
        ("Q4_K_M", ("Q4_K_M", None)),
        ("llama-7b", ("llama-7b", None)),
    ],
)
def test_the_end_of_a_file_name_says_its_quantisation(stem: str, parts: tuple[str, str | None]) -> None:
    assert split_quantization(stem) == parts


@pytest.mark.parametrize(
    ("name", "engine_id"), [("a?b#c", "a_b_c"), ("../x//y", "x/y"), ("..", "model"), ("a\ud800", "a_")]
)
def test_every_file_name_makes_a_name_of_an_engine(name: str, engine_id: str) -> None:
    assert usable(name) == engine_id
