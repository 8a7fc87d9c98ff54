"""Which backends there are, and how others add theirs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kolosal.app import create_app
from kolosal.backends import registry
from kolosal.backends.registry import backend_names, find_class, register_backend
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.persist import EngineFile
from kolosal.engines.registry import EngineRegistry
from tests.backends.scripted import Scripted
from tests.fakes import http_client
from tests.settings import settings_of
from tests.test_docs import ROOT

_POINTS = "[kolosal.backends]\nshout = shout:Shout\n"


@pytest.fixture
def shout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The backend of docs/backends.md, as a package that was installed."""
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    (tmp_path / "shout.py").write_text(page.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
    about = tmp_path / "shout-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._of_packages.cache_clear()
    yield tmp_path
    registry._of_packages.cache_clear()


async def test_a15_the_backend_of_the_documentation_serves(
    shout: Path, real_worker: WorkerCommand, tmp_path: Path
) -> None:
    command = replace(real_worker, environment={**real_worker.environment, "PYTHONPATH": str(shout)})
    engines = EngineRegistry(command, engine_file=EngineFile(tmp_path / "state"))
    assert engines.engine_file is not None
    await engines.engine_file.restore()
    async with http_client(create_app(settings_of(), engines)) as client:
        body = {"engine_id": "s", "backend": "shout", "backend_options": {"mark": "?"}}
        added = await client.post("/engines", json=body)
        assert added.status_code == 201, added.text
        turns = [{"role": "system", "content": "be quiet"}, {"role": "user", "content": "is it so"}]
        chat = await client.post("/v1/chat/completions", json={"model": "s", "messages": turns})
        assert chat.json()["choices"][0]["message"]["content"] == "IS IT SO ?"
        assert chat.json()["usage"]["prompt_tokens"] == 3
        refused = await client.post("/v1/completions", json={"model": "s", "prompt": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_feature")
        [row] = (await client.get("/engines")).json()["engines"]
        [model] = (await client.get("/v1/models")).json()["data"]
        details = (await client.get("/engines/s")).json()
    assert (row["backend"], model["backend"]) == ("shout", "shout")
    assert (details["backend"], details["backend_options"]) == ("shout", {"mark": "?"})
    assert "shout" not in sys.modules, "the daemon runs no backend's code"
    await engines.close(drain_s=1)

    again = EngineFile(tmp_path / "state")
    [stored] = await again.restore()
    assert (stored.config.backend, stored.config.backend_options) == ("shout", {"mark": "?"})
    await again.close()


async def test_a17_what_no_engine_can_have_is_refused_by_name(real_worker: WorkerCommand) -> None:
    engines = EngineRegistry(real_worker)
    refused: dict[tuple[str, str | None], dict[str, object]] = {
        ("backend", "unsupported_backend"): {"backend": "nope"},
        ("n_gpu_layers", None): {"backend": "echo", "n_gpu_layers": 3},
        ("backend_options", None): {"backend": "echo", "backend_options": {"a": 1}},
        ("model_path", None): {"backend": "llamacpp"},
    }
    async with http_client(create_app(settings_of(), engines)) as client:
        for (param, code), fields in refused.items():
            answer = await client.post("/engines", json={"engine_id": "a", **fields})
            error = answer.json()["error"]
            assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
        options = {"model_path": "a.gguf", "backend_options": {"a": 1}}
        answer = await client.post("/engines", json={"engine_id": "a", **options})
        assert answer.json()["error"]["param"] == "backend_options"
        named = await client.post("/engines", json={"engine_id": "a", "backend": "nope"})
    assert named.json()["error"]["message"] == (
        f"There is no backend 'nope'. There are: {', '.join(backend_names())}"
    )
    await engines.close(drain_s=1)


async def test_quantising_needs_what_does_it(real_worker: WorkerCommand, tmp_path: Path) -> None:
    engines = EngineRegistry(real_worker)
    body = {"engine_id": "a", "backend": "transformers", "model_path": str(tmp_path)}
    async with http_client(create_app(settings_of(), engines)) as client:
        answer = await client.post("/engines", json=body | {"backend_options": {"quantization": "4bit"}})
    missing = importlib.util.find_spec("transformers") is None
    expected = "backend" if missing else "backend_options.quantization"
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, expected)
    await engines.close(drain_s=1)


def test_a_program_may_add_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "registered", {})
    register_backend("scripted", Scripted)
    register_backend("scripted", "tests.backends.scripted:Scripted")
    assert "scripted" in backend_names()
    assert find_class(registry.registered["scripted"]) is Scripted

    class Local(Scripted):
        """Nobody else can import this."""

    for name, place, words in (
        ("scripted", "a:B", "There is a backend 'scripted' already"),
        ("echo", "a:B", "There is a backend 'echo' already"),
        ("llamacpp", "a:B", "already"),
        ("a b", "a:B", "letters, digits"),
        ("local", Local, "no class that another process can import"),
        ("main", "__main__:B", "no class that another process can import"),
        ("nothing", "a", "no class that another process can import"),
    ):
        with pytest.raises(ValueError, match=words):
            register_backend(name, place)
