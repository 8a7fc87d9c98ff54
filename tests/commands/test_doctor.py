"""`kolosal doctor` on this machine: the lines it prints and the status it ends with."""

from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.commands.doctor.facts import PortState, probe_port
from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon
from tests.settings import settings_of


@pytest.fixture
def at_stub(stub: StubDaemon, monkeypatch: pytest.MonkeyPatch) -> StubDaemon:
    monkeypatch.setenv("KOLOSAL_PORT", stub.url.rpartition(":")[2])
    return stub


def test_a_running_daemon_is_seen(cli: Cli, at_stub: StubDaemon) -> None:
    assert "a daemon answers on 127.0.0.1" in cli("doctor").out


def test_a_bad_configuration_is_a_failed_check_and_not_an_error(
    cli: Cli, at_stub: StubDaemon, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("server: {prot: 1}\n", encoding="utf-8")
    done = cli("doctor")
    assert (done.code, done.err) == (1, "")
    assert "config.yaml:1: server.prot: unknown key" in done.out


def test_a_port_that_something_else_has_is_taken(stub: StubDaemon) -> None:
    port = int(stub.url.rpartition(":")[2])
    stub.is_daemon = False
    state, word = probe_port(settings_of(port=port))
    assert state is PortState.TAKEN
    assert "not a Kolosal daemon" in word
