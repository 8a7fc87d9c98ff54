"""`/v1/library`: what the disks hold is listed, shown and removed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kolosal.models.folders import HuggingFaceCache, LmStudioFolder
from kolosal.models.ollama_store import OllamaStore
from kolosal.models.stores import Store
from tests.fakes import FakeEngine
from tests.gguf_files import LLAMA, gguf
from tests.models.layouts import add_to_hub_cache, add_to_ollama
from tests.models.serving import TINY, AddingRegistry, client_of, write_models

CHAT = {"model": TINY, "messages": [{"role": "user", "content": "Hi"}]}
CONTENT = gguf(LLAMA)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_models(tmp_path / "models")
    return tmp_path / "models"


def names_in(folder: Path) -> set[str]:
    """Names of all files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def test_models_are_listed_with_what_is_known_of_them(models: Path) -> None:
    async with client_of(AddingRegistry(), models) as http:
        before = (await http.get("/v1/library")).json()
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200
        after = (await http.get("/library/tiny-q4_k_m")).json()
    broken, tiny = before["models"]
    file = models / "org" / "Tiny-Q4_K_M.gguf"
    assert before["folders"] == [{"source": "folder", "path": str(models), "problem": None}]
    assert before["total_size"] == file.stat().st_size + 4
    assert (broken["name"], broken["architecture"]) == ("broken", None)
    assert "ends at byte 4" in broken["error"]
    assert tiny == {
        "name": TINY, "source": "folder", "size": file.stat().st_size,
        "files": [{"path": str(file), "size": file.stat().st_size}], "projector": None,
        "architecture": "llama", "parameters": tiny["parameters"], "quantization": "Q4_K_M", "n_ctx_train": 2048,
        "capabilities": ["completion", "tools"], "digest": None, "added_at": tiny["added_at"],
        "modified_at": tiny["modified_at"], "last_used_at": None, "error": None, "engines": [], "status": "unloaded",
    }  # fmt: skip
    assert (after["engines"], after["status"]) == ([TINY], "loaded")


async def test_a_digest_is_made_when_it_is_asked_for(models: Path) -> None:
    async with client_of(AddingRegistry(), models) as http:
        shown = (await http.get(f"/v1/library/{TINY}?digest=true")).json()
        listed = (await http.get("/v1/library")).json()["models"][1]
    assert (
        shown["digest"]
        == hashlib.sha256((models / f"{TINY}.gguf").read_bytes()).hexdigest()
        == listed["digest"]
    )


async def test_keys_without_the_right_see_names_and_no_paths(models: Path) -> None:
    key = "k" * 32
    (models.parent / "keys").write_text(f"{key} inference\n{'a' * 32} admin\n")
    (models.parent / "keys").chmod(0o600)
    async with client_of(AddingRegistry(), models, api_key_file=str(models.parent / "keys")) as http:
        http.headers["authorization"] = f"Bearer {key}"
        seen = (await http.get("/v1/library")).json()
        assert (await http.delete(f"/v1/library/{TINY}")).status_code == 403
    assert seen["folders"] == []
    assert [model["files"][0]["path"] for model in seen["models"]] == ["broken.gguf", "Tiny-Q4_K_M.gguf"]


async def test_a_model_is_removed_with_the_engine_that_a_request_made_of_it(models: Path) -> None:
    registry = AddingRegistry()
    async with client_of(registry, models) as http:
        assert (await http.post("/v1/chat/completions", json=CHAT)).status_code == 200
        removed = await http.delete(f"/v1/library/{TINY}")
        assert (removed.status_code, removed.json()["name"]) == (200, TINY)
        assert removed.json()["freed_bytes"] > 0
        assert (await http.get(f"/v1/library/{TINY}")).status_code == 404
    assert registry.list() == []
    assert names_in(models) == {"broken.gguf"}


async def test_a_model_stays_while_an_engine_that_somebody_added_uses_it(models: Path) -> None:
    async with client_of(AddingRegistry(), models) as http:
        path = str(models / f"{TINY}.gguf")
        assert (
            await http.post("/engines", json={"engine_id": "mine", "model_path": path})
        ).status_code == 201
        refused = await http.delete(f"/v1/library/{TINY}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_in_use")
        assert (await http.request("DELETE", "/api/delete", json={"model": "mine"})).status_code == 200
        assert "Tiny-Q4_K_M.gguf" in names_in(models)
        assert (await http.request("DELETE", "/api/delete", json={"model": TINY})).status_code == 200
        assert "Tiny-Q4_K_M.gguf" not in names_in(models)


@pytest.mark.parametrize("path", ["/v1/library/{}", "/v1/models/{}"])
async def test_an_unknown_name_suggests_the_nearest(path: str, models: Path) -> None:
    async with client_of(AddingRegistry(FakeEngine("other")), models) as http:
        answer = await http.get(path.format("tinny-q4"))
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        404,
        f"Model 'tinny-q4' not found; did you mean '{TINY}'?",
    )


def lm_studio(folder: Path) -> tuple[Store, set[str]]:
    for name in ("pub/M/M-Q4_0.gguf", "pub/M/M-Q8_0.gguf", "pub/M/mmproj-M.gguf"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CONTENT)
    return LmStudioFolder(folder), {"M-Q8_0.gguf", "mmproj-M.gguf"}


def hub(folder: Path) -> tuple[Store, set[str]]:
    add_to_hub_cache(folder, "pub/M", "1" * 40, "M-Q4_0.gguf", CONTENT)
    add_to_hub_cache(folder, "pub/M", "2" * 40, "M-Q4_0.gguf", CONTENT)
    other = add_to_hub_cache(folder, "pub/M", "2" * 40, "M-Q8_0.gguf", gguf({**LLAMA, "x": (8, "y")}))
    return HuggingFaceCache(folder), {"M-Q8_0.gguf", other, "main"}


def ollama(folder: Path) -> tuple[Store, set[str]]:
    (folder.parent / "m.gguf").write_bytes(CONTENT)
    add_to_ollama(folder, "registry.ollama.ai/pub/M/Q4_0", folder.parent / "m.gguf", system="a")
    digest = add_to_ollama(folder, "registry.ollama.ai/pub/M/Q8_0", folder.parent / "m.gguf")
    return OllamaStore(folder), {"Q8_0", f"sha256-{digest}"}


@pytest.mark.parametrize("make", [lm_studio, hub, ollama])
async def test_what_other_models_need_stays(make: object, tmp_path: Path) -> None:
    store, left = make(tmp_path / "store")  # type: ignore[operator]
    async with client_of(AddingRegistry(), store) as http:
        assert [row["name"] for row in (await http.get("/v1/library")).json()["models"]] == [
            "pub/M:Q4_0",
            "pub/M:Q8_0",
        ]
        removed = await http.delete("/v1/library/pub/M:Q4_0")
        assert removed.status_code == 200
        assert [row["name"] for row in (await http.get("/v1/library")).json()["models"]] == ["pub/M:Q8_0"]
        assert names_in(tmp_path / "store") == left
        assert (await http.delete("/v1/library/pub/M:Q8_0")).status_code == 200
    assert not any("gguf" in name or "sha256" in name for name in names_in(tmp_path / "store"))
