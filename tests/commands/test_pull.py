"""`kolosal pull`, `search` and completion where no daemon runs: the same fetcher, against fakes on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kolosal.commands.completion import model_names
from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon
from tests.fake_hub import FakeHub
from tests.fake_registry import FakeRegistry
from tests.file_server import ServedFile

MODEL = b"GGUF" + bytes(200_000)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[FakeHub, FakeRegistry]]:
    with FakeHub() as hub, FakeRegistry() as registry:
        hub.add("org/m-GGUF", **{"m-Q4_K_M": MODEL, "m-Q8_0": MODEL + b"8"}).downloads = 1234
        registry.add("tiny", "3b", MODEL)
        yield hub, registry


@pytest.fixture
def hub(
    servers: tuple[FakeHub, FakeRegistry], monkeypatch: pytest.MonkeyPatch, free_port: int, tmp_path: Path
) -> FakeHub:
    """The hub and the registry of this place, where no daemon runs."""
    monkeypatch.setenv("HF_ENDPOINT", servers[0].url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("KOLOSAL_DOWNLOADS_OLLAMA_REGISTRY", servers[1].url)
    monkeypatch.setenv("KOLOSAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("KOLOSAL_PORT", str(free_port))
    return servers[0]


def test_a_model_is_fetched_and_told_where_it_is(cli: Cli, hub: FakeHub) -> None:
    done = cli("pull", "hf.co/org/m-GGUF", "--quant", "Q4_K_M", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["source"], said["model"]) == ("hf.co/org/m-GGUF:Q4_K_M", "org/m-GGUF:Q4_K_M")
    assert Path(said["path"]).read_bytes() == MODEL
    assert "hf.co/org/m-GGUF:Q4_K_M: 200 kB; " in done.err
    again = cli("pull", "hf.co/org/m-GGUF:Q4_K_M")
    assert (again.code, again.err) == (0, "")
    assert "is here (200 kB): talk to it with `kolosal run org/m-GGUF:Q4_K_M`" in again.out
    assert model_names("org/") == ["org/m-GGUF:Q4_K_M"]


def test_what_cannot_be_fetched_is_one_line(cli: Cli, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("pull", "hf.co/org/m-GGUF:Q5_0")
    assert (done.code, done.err) == (1, "Error: hf.co/org/m-GGUF has no Q5_0; it has Q4_K_M, Q8_0\n")
    monkeypatch.setenv("KOLOSAL_DOWNLOADS_OFFLINE", "true")
    for command in (("pull", "ollama:tiny:3b"), ("search", "m")):
        done = cli(*command)
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "the setting downloads.offline says so" in done.err


def test_a_model_larger_than_the_machine_is_not_fetched_unasked(
    cli: Cli, hub: FakeHub, servers: tuple[FakeHub, FakeRegistry]
) -> None:
    registry = servers[1]
    registry.add("huge", "latest", ServedFile(b"GGUF"))
    name = "/v2/library/huge/manifests/latest"
    registry.manifests[name] = registry.manifests[name].replace(b'"size": 4}', b'"size": 40000000000000}')
    done = cli("pull", "ollama:huge")
    assert done.code == 1
    assert "Error: ollama:huge:latest has 40000.00 GB. It is larger than this machine's memory" in done.err
    insisted = cli("pull", "ollama:huge", "--yes")
    assert (insisted.code, "There is no room for ollama:huge:latest" in insisted.err) == (1, True)


def test_search_lists_what_the_hub_has(cli: Cli, hub: FakeHub) -> None:
    done = cli("search", "m-gguf")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].split() == ["hf.co/org/m-GGUF", "1,234", "1"]
    assert json.loads(cli("search", "m-gguf", "--json").out)[0]["name"] == "hf.co/org/m-GGUF"
    assert "The hub has no GGUF models for 'nothing like it'" in cli("search", "nothing", "like", "it").out


def test_shells_complete_the_names_of_a_daemon(stub: StubDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.answers["/v1/models"] = {"data": [{"id": "tiny"}, {"id": "big"}]}
    monkeypatch.setenv("KOLOSAL_PORT", stub.url.rpartition(":")[2])
    assert model_names("t") == ["tiny"]
    stub.refusal = (500, {"error": "x"})
    assert model_names("t") == []


def test_a_model_that_is_here_is_run_though_the_hub_is_away(stub: StubDaemon, cli: Cli) -> None:
    stub.answers["/v1/models/hf.co%2Forg%2Fm-GGUF%3AQ4_K_M"] = {"id": "org/m-GGUF:Q4_K_M"}
    done = cli("run", "hf.co/org/m-GGUF:Q4_K_M", "Hello", "--url", stub.url)
    assert (done.code, done.out) == (0, "Hi\n")
    assert stub.bodies("POST", "/v1/downloads") == []
    (asked,) = stub.bodies("POST", "/v1/chat/completions")
    assert asked["model"] == "hf.co/org/m-GGUF:Q4_K_M"
