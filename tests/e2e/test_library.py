"""Models that other programs have fetched are simply there: listed and run where they lie, and nothing is copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import openai
import pytest

from tests.e2e.helpers import DEADLINE_S, Daemon, chat, content_of
from tests.models.layouts import add_to_ollama

pytestmark = pytest.mark.model


@pytest.fixture
def stores(daemon: Daemon, smollm2: Path) -> Iterator[list[Path]]:
    """A store of Ollama's and a folder of LM Studio's in the home of who runs the daemon, with the real model."""
    ollama_store, lm_studio = daemon.folder / ".ollama/models", daemon.folder / ".lmstudio/models"
    add_to_ollama(ollama_store, "registry.ollama.ai/library/smol/135m", smollm2)
    file = lm_studio / "hub" / "SmolLM2-GGUF" / "SmolLM2-135M-Q4_1.gguf"
    file.parent.mkdir(parents=True)
    shutil.copy(smollm2, file)
    yield [ollama_store, lm_studio]
    shutil.rmtree(ollama_store.parent)
    shutil.rmtree(lm_studio.parent)


def test_they_run_where_they_lie(
    stores: list[Path], daemon: Daemon, http: httpx.Client, sdk: openai.OpenAI
) -> None:
    assert len(http.get("/v1/library?refresh=true").json()["models"]) >= 2
    before = {
        path for path in daemon.folder.rglob("*") if path.is_file() and path.stat().st_size > 10_000_000
    }
    for name in ("smol:135m", "hub/SmolLM2-GGUF:Q4_1"):
        answer = content_of(http.post("/v1/chat/completions", json=chat("Say hello.", name, max_tokens=8)))
        assert answer
        paths = [engine["model_path"] for engine in http.get("/engines?details=true").json()["engines"]]
        assert any(path.startswith(str(store)) for path in paths for store in stores)
    with ollama.Client(host=daemon.url, timeout=DEADLINE_S) as client:
        assert client.generate("smol:135m", "Hi", options={"num_predict": 4}).response
    said = sdk.chat.completions.create(
        model="hub/smollm2-gguf", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
    )
    assert said.choices[0].message.content
    after = {path for path in daemon.folder.rglob("*") if path.is_file() and path.stat().st_size > 10_000_000}
    assert before == after
