"""`config check` and `config reload`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon
from tests.gguf_files import gguf


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "a.gguf").write_bytes(gguf())
    return tmp_path / "server.yaml"


def test_a_good_configuration_is_said_to_be_good(cli: Cli, config: Path) -> None:
    config.write_text("server: {port: 9000}\nmodels: [{id: a, path: a.gguf}]", encoding="utf-8")
    done = cli("config", "check", "--config", str(config))
    assert (done.code, done.out) == (0, f"OK: {config}: 1 settings given, 1 engines\n")


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("server: {prot: 1}", 2, ":1: server.prot: unknown key: did you mean 'server.port'?"),
        ("server: {host: 0.0.0.0}", 2, "server.host: 0.0.0.0 lets other machines in"),
        ("server: {tls_key: k.pem}", 2, "server.tls_certificate: is missing"),
        ("models: [{id: b, path: no.gguf}]", 1, ":1: b: "),
    ],
)
def test_what_is_wrong_is_said_and_nothing_started(
    cli: Cli, config: Path, text: str, code: int, told: str
) -> None:
    config.write_text(text, encoding="utf-8")
    done = cli("config", "check", "--config", str(config))
    assert (done.code, done.out) == (code, "")
    assert told in done.err


def test_a_reload_tells_what_became_of_everything(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/v1/config/reload"] = {
        "applied": ["logging.level"],
        "needs_restart": ["server.port"],
        "failed": [],
    }
    done = cli("config", "reload", "--url", stub.url)
    assert (done.code, done.out) == (0, "holds now: logging.level\nneeds a restart: server.port\n")
    stub.answers["/v1/config/reload"] = {"applied": [], "needs_restart": [], "failed": []}
    assert cli("config", "reload", "--url", stub.url).out == "Nothing has changed\n"
    assert stub.received[-1][0] == "POST"
