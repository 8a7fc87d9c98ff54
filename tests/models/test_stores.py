"""Models that other programs have fetched: what lies in their folders, as they lay it there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kolosal.config.settings import Settings
from kolosal.models.folders import HuggingFaceCache, LmStudioFolder
from kolosal.models.library import Library
from kolosal.models.ollama_store import OllamaStore
from kolosal.models.places import model_folders, stores_of
from kolosal.models.stores import Store
from tests.gguf_files import LLAMA, gguf
from tests.models.layouts import add_manifest, add_to_hub_cache, add_to_ollama
from tests.settings import settings_of

CONTENT = gguf(LLAMA)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(CONTENT)
    return file


async def scanned(store: Store) -> Library:
    library = Library([store])
    await library.refresh()
    return library


async def test_ollamas_models_have_their_names_there(tmp_path: Path, model: Path) -> None:
    store = tmp_path / "ollama"
    for name in ("library/llama3.2/3b", "library/phi/latest", "someone/tuned/q8"):
        add_to_ollama(store, f"registry.ollama.ai/{name}", model)
    add_to_ollama(store, "hf.co/bartowski/Qwen3-8B-GGUF/Q4_K_M", model)
    digest = add_to_ollama(store, "registry.example/team/m/1", model)
    library = await scanned(OllamaStore(store))
    assert [each.name for each in library.models] == [
        "bartowski/Qwen3-8B-GGUF:Q4_K_M", "llama3.2:3b", "phi", "registry.example/team/m:1", "someone/tuned:q8",
    ]  # fmt: skip
    assert {each.digest for each in library.models} == {digest}
    found = library.find("phi:latest")
    assert found is not None
    assert (found.source, found.path, found.error) == ("ollama", store / "blobs" / f"sha256-{digest}", None)
    assert library.find("hf.co/bartowski/qwen3-8b-gguf:q4_k_m") is not None


async def test_what_ollama_says_of_a_model_is_kept(tmp_path: Path, model: Path) -> None:
    add_to_ollama(
        tmp_path, "registry.ollama.ai/library/m/latest", model, system="Be kind.", params="{}", license="MIT"
    )
    [found] = (await scanned(OllamaStore(tmp_path))).models
    assert {kind: path.read_text() for kind, path in found.layers} == {"system": "Be kind.", "params": "{}"}


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ({"model": "sha256:" + "0" * 64}, "its file blobs/sha256-00000000… is missing"),
        ({"model": "sha256:../../etc"}, "a layer of it has no digest"),
        ({"template": "sha256:" + "0" * 64}, "it has no GGUF files, and one is needed"),
        (
            {"model": "sha256:" + "0" * 64, "adapter": "sha256:" + "1" * 64},
            "it has an adapter, which Kolosal does not load",
        ),
    ],
)
async def test_a_manifest_that_names_no_usable_file_says_so(
    layers: dict[str, str], reason: str, tmp_path: Path
) -> None:
    add_manifest(tmp_path, "registry.ollama.ai/library/m/latest", layers)
    [found] = (await scanned(OllamaStore(tmp_path))).models
    assert found.error == f"Ollama's manifest of 'm' cannot be used: {reason}"


@pytest.mark.parametrize("text", ["", "[]", '{"layers": 1}', '{"layers": [7]}', "\0"])
async def test_a_manifest_that_is_none_says_so(text: str, tmp_path: Path) -> None:
    add_manifest(tmp_path, "registry.ollama.ai/library/m/latest", {}).write_text(text)
    [found] = (await scanned(OllamaStore(tmp_path))).models
    assert found.error is not None


async def test_lm_studios_models_are_named_by_repository_and_quantisation(tmp_path: Path) -> None:
    for name in (
        "pub/Tiny-GGUF/Tiny-Q4_K_M.gguf",
        "pub/Tiny-GGUF/Tiny-Q8_0.gguf",
        "pub/Tiny-GGUF/mmproj-Tiny.gguf",
        "pub/Alone/model.gguf",
        "pub/Two/a-Q4_0.gguf",
        "pub/Two/b-Q4_0.gguf",
        "loose.gguf",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(CONTENT)
    library = await scanned(LmStudioFolder(tmp_path))
    assert [model.name for model in library.models] == [
        "loose", "pub/Alone", "pub/Tiny-GGUF:Q4_K_M", "pub/Tiny-GGUF:Q8_0", "pub/Two:a-Q4_0", "pub/Two:b-Q4_0",
    ]  # fmt: skip
    tiny = library.find("tiny-gguf")
    assert tiny is not None
    assert tiny.projector is not None
    assert tiny.name == "pub/Tiny-GGUF:Q4_K_M"


@pytest.mark.skipif(os.name == "nt", reason="making links needs a right there")
async def test_the_newest_revision_of_a_hub_repository_counts(tmp_path: Path) -> None:
    newer = gguf({**LLAMA, "general.name": (8, "newer")})
    add_to_hub_cache(tmp_path, "org/Tiny-GGUF", "1" * 40, "Tiny-Q4_K_M.gguf", CONTENT, main=False)
    old = add_to_hub_cache(tmp_path, "org/Tiny-GGUF", "1" * 40, "Tiny-Q8_0.gguf", CONTENT, main=False)
    new = add_to_hub_cache(tmp_path, "org/Tiny-GGUF", "2" * 40, "Tiny-Q4_K_M.gguf", newer)
    (tmp_path / "datasets--org--x").mkdir()
    library = await scanned(HuggingFaceCache(tmp_path))
    assert {model.name: model.digest for model in library.models} == {
        "org/Tiny-GGUF:Q4_K_M": new,
        "org/Tiny-GGUF:Q8_0": old,
    }
    assert [model.source for model in library.models] == ["huggingface"] * 2


def folders(settings: Settings, environ: dict[str, str]) -> list[str]:
    return [store.folder.as_posix() for store in stores_of(settings, environ, "darwin")]


@pytest.mark.skipif(os.name == "nt", reason="paths look otherwise")
def test_where_stores_are_is_said_by_settings_and_variables() -> None:
    home = {"HOME": "/h"}
    assert folders(Settings(), home)[-4:] == [
        "/h/.cache/huggingface/hub", "/h/.ollama/models", "/h/.lmstudio/models", "/h/.cache/lm-studio/models",
    ]  # fmt: skip
    moved = {"HF_HOME": "/hf", "OLLAMA_MODELS": "/o", "HOME": ""}
    assert folders(Settings(), moved) == ["/hf/hub", "/o"]
    assert folders(Settings(), {"HF_HUB_CACHE": "/c", "HF_HOME": "/hf", "OLLAMA_MODELS": "/o"}) == [
        "/c",
        "/o",
    ]
    none = settings_of(
        library_huggingface=False, library_ollama=False, library_lm_studio=False, library_folders=["/a", "/b"]
    )
    assert folders(none, home) == ["/a", "/b", "/a/ollama"]


@pytest.mark.skipif(os.name == "nt", reason="paths look otherwise")
def test_models_are_kept_in_the_first_folder() -> None:
    assert model_folders(settings_of(state_dir="/s"), {"HOME": "/h"}) == [Path("/s/models")]
    assert model_folders(settings_of(library_folders=["/a"]), {}) == [Path("/a")]
    assert model_folders(Settings(), {}) == []
