"""What Open WebUI asks, in its two ways of talking: a model is pulled, listed, loaded, chatted with, seen, unloaded and deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.helpers import DEADLINE_S, Daemon, chat, wait_until
from tests.fake_registry import FakeRegistry

pytestmark = pytest.mark.model

NAME = "tiny:1b"


@pytest.fixture
def http(tmp_path: Path, tiny_gguf: Path) -> Iterator[httpx.Client]:
    """A client of a daemon that has no model, and whose registry is near."""
    with FakeRegistry() as registry:
        registry.add("tiny", "1b", tiny_gguf.read_bytes(), params=json.dumps({"num_ctx": 512}))
        config = tmp_path / "config.yaml"
        config.write_text(f"downloads: {{ollama_registry: '{registry.url}'}}", encoding="utf-8")
        daemon = Daemon.start(tmp_path, "--config", str(config), "--port", "0")
        try:
            daemon.wait_until_listening()
            with httpx.Client(base_url=daemon.url, timeout=DEADLINE_S, trust_env=False) as client:
                yield client
        finally:
            assert daemon.stop() == 0, daemon.log


def names(http: httpx.Client, path: str) -> list[str]:
    return [model["name"] for model in http.get(path).json()["models"]]


def status(http: httpx.Client) -> Any:
    """What the row of the model says of it, as llama.cpp's router has it."""
    rows = {row["id"]: row for row in http.get("/v1/models").json()["data"]}
    return rows[NAME]["status"]["value"]


def test_open_webui_from_an_empty_home_to_an_empty_home(http: httpx.Client) -> None:
    assert http.get("/api/version").json()["version"]
    assert names(http, "/api/tags") == []

    pulled = http.post("/api/pull", json={"name": NAME, "model": NAME})
    lines = [json.loads(line) for line in pulled.text.splitlines()]
    assert (lines[0]["status"], lines[-1]["status"]) == ("pulling manifest", "success")

    assert names(http, "/api/tags") == [NAME]
    assert status(http) == "unloaded"
    assert http.post("/models/load", json={"model": NAME}).json() == {"success": True}
    wait_until(lambda: bool(status(http) == "loaded"))
    assert names(http, "/api/ps") == [NAME]

    streamed = http.post("/v1/chat/completions", json=chat("Hi", NAME, stream=True, max_tokens=4))
    assert streamed.text.endswith("data: [DONE]\n\n")
    answered = http.post(
        "/api/chat", json={**chat("Hi", NAME), "stream": False, "options": {"num_predict": 4}}
    )
    assert answered.json()["done"]

    assert http.post("/models/unload", json={"model": NAME}).json() == {"success": True}
    assert status(http) == "unloaded"
    assert names(http, "/api/ps") == []
    assert http.request("DELETE", "/api/delete", json={"model": NAME}).status_code == 200
    assert names(http, "/api/tags") == []
