"""`kolosal service` over a systemctl that only takes notes: what is installed, what is refused, and what is left then."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from kolosal.service import systemd
from kolosal.service.systemd import Systemd
from kolosal.service.tool import following, last_lines
from tests.commands.conftest import Cli

if sys.platform != "linux":
    pytest.skip("systemd is Linux's", allow_module_level=True)

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "{notes}"
case "$*" in *{failing}*) echo "it is not to be" >&2; exit 1;; *FragmentPath*) test -z "{found}" || echo "{found}";; esac
"""


class Machine:
    """One with systemd, and what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._notes = folder / "notes"
        self.units = folder / "home" / "systemd" / "user"
        self.unit = self.units / "kolosal.service"
        monkeypatch.setenv("PATH", str(self._bin), prepend=":")
        monkeypatch.setattr(systemd, "_BOOTED", folder)
        self.answers()

    def answers(self, failing: str = "nothing", found: str = "") -> None:
        for tool in ("systemctl", "journalctl"):
            file = self._bin / tool
            file.write_text(
                SYSTEMCTL.format(notes=self._notes, failing=failing, found=found), encoding="utf-8"
            )
            file.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return self._notes.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_service_is_installed_used_and_removed(cli: Cli, machine: Machine, free_port: int) -> None:
    done = cli("service", "install", "--user", "--port", str(free_port))
    assert (done.code, done.err) == (0, "")
    assert "kolosal service start --user" in done.out
    assert f"--port {free_port}" in machine.unit.read_text(encoding="utf-8")
    for verb in ("start", "restart", "status", "logs", "stop"):
        assert cli("service", verb, "--user").code == 0
    assert cli("service", "uninstall", "--user").code == 0
    assert [*machine.units.iterdir()] == []
    asked = [line.removeprefix("--user ") for line in machine.asked if "show" not in line]
    assert asked == [
        "daemon-reload",
        "enable kolosal.service",
        "start kolosal.service",
        "stop kolosal.service",
        "start kolosal.service",
        "status --no-pager --lines=5 kolosal.service",
        "--user-unit=kolosal --lines 100 --no-pager --output cat",
        "stop kolosal.service",
        "disable --now kolosal.service",
        "daemon-reload",
        "reset-failed kolosal.service",
    ]


def test_a_configuration_is_checked_and_named(
    cli: Cli, machine: Machine, tmp_path: Path, free_port: int
) -> None:
    file = tmp_path / "my config.yaml"
    file.write_text(f"server: {{port: {free_port}, shutdown_drain_s: 5}}\n", encoding="utf-8")
    assert cli("service", "install", "--user", "--config", "my config.yaml").code == 0
    text = machine.unit.read_text(encoding="utf-8")
    assert f'--config "{file}"' in text
    assert "TimeoutStopSec=20" in text


def refused(cli: Cli, machine: Machine, *arguments: str, status: int = 1) -> str:
    """One sentence, and nothing is left."""
    done = cli("service", "install", "--user", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (status, "", 1)
    assert not machine.unit.exists()
    return done.err


def test_a_configuration_that_does_not_parse_is_refused(cli: Cli, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("server: {port: [\n", encoding="utf-8")
    assert "bad.yaml" in refused(cli, machine, "--config", "bad.yaml", status=2)
    assert "nothing.yaml" in refused(cli, machine, "--config", "nothing.yaml", status=2)


def test_a_port_that_is_taken_is_refused(cli: Cli, machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port % 65535 + 1}" in refused(cli, machine, "--port", str(port))


@pytest.mark.parametrize("failing", ["daemon-reload", "enable"])
def test_an_install_that_fails_leaves_nothing(
    cli: Cli, machine: Machine, free_port: int, failing: str
) -> None:
    machine.answers(failing)
    assert "it is not to be" in refused(cli, machine, "--port", str(free_port))


def test_units_that_cannot_be_written_are_one_sentence(cli: Cli, machine: Machine, free_port: int) -> None:
    machine.units.parent.parent.mkdir(parents=True, exist_ok=True)
    machine.units.parent.touch()  # a file where a folder should be
    done = cli("service", "install", "--user", "--port", str(free_port))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(machine.unit) in done.err


def test_a_user_without_a_manager_is_told_how_to_get_one(cli: Cli, machine: Machine, free_port: int) -> None:
    machine.answers("Version")
    assert "enable-linger" in refused(cli, machine, "--port", str(free_port))


def test_a_machine_without_systemd_is_told_so(
    cli: Cli, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path / "nothing")
    assert "kolosal serve" in refused(cli, machine)


def test_a_service_of_the_system_needs_root(
    cli: Cli, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["/opt/my bin/kolosal", "service", "install", "--port", "9"])
    for verb in ("install", "uninstall", "start", "stop", "restart"):
        done = cli("service", verb)
        assert (done.code, done.out) == (1, "")
        assert 'sudo "/opt/my bin/kolosal" service install --port 9' in done.err
        assert "--user" in done.err


def test_a_name_in_use_is_refused(cli: Cli, machine: Machine, tmp_path: Path, free_port: int) -> None:
    assert cli("service", "install", "--user", "--port", str(free_port)).code == 0
    before = machine.unit.read_bytes()
    done = cli("service", "install", "--user", "--port", str(free_port))
    assert (done.code, done.out) == (1, "")
    assert "kolosal service uninstall --name kolosal" in done.err
    assert machine.unit.read_bytes() == before


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "status", "logs", "uninstall"])
def test_nobody_elses_service_is_touched(cli: Cli, machine: Machine, tmp_path: Path, verb: str) -> None:
    theirs = tmp_path / "ssh.service"
    theirs.write_text("[Service]\nExecStart=/usr/sbin/sshd\n", encoding="utf-8")
    machine.answers(found=str(theirs))
    done = cli("service", verb, "--user", "--name", "ssh")
    assert (done.code, done.out) == (1, "")
    assert "was not installed by" in done.err
    assert theirs.exists()
    machine.answers()
    assert "kolosal service install --name other" in cli("service", verb, "--user", "--name", "other").err


def test_an_account_that_the_system_makes_up_can_read_what_everybody_can(
    cli: Cli, machine: Machine, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(systemd, "_SYSTEM_UNITS", tmp_path)
    config = tmp_path / "closed.yaml"
    config.write_text(f"server: {{port: {free_port}}}\n", encoding="utf-8")
    config.chmod(0o600)
    monkeypatch.setenv("SUDO_USER", "anna")
    done = cli("service", "install", "--config", str(config))
    assert (done.code, done.out) == (1, "")
    assert "--account anna" in done.err
    assert not (tmp_path / "kolosal.service").exists()
    done = cli("service", "install", "--config", str(config), "--account", "anna")
    assert (done.code, "User=anna" in (tmp_path / "kolosal.service").read_text(encoding="utf-8")) == (0, True)


def test_an_own_service_has_no_other_account(cli: Cli, machine: Machine) -> None:
    assert "--account" in refused(cli, machine, "--account", "anna")


def test_a_start_that_fails_shows_the_last_words(cli: Cli, machine: Machine, free_port: int) -> None:
    assert cli("service", "install", "--user", "--port", str(free_port)).code == 0
    machine.answers("start")
    assert "it is not to be" in cli("service", "start", "--user").err


def test_a_user_manager_is_found_where_its_units_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Systemd(user=True).folder_of("kolosal") is None
    assert Systemd(user=False).folder_of("kolosal") == Path("/etc/kolosal")


def test_a_log_is_followed_over_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "kolosal.log"
    assert last_lines(log, 5) == []
    log.write_text("one\ntwo\nthree\n", encoding="utf-8")
    assert last_lines(log, 2) == ["two", "three"]
    assert last_lines(log, 0) == []
    steps = iter(["\nfour\nfi", "ve\n", None])

    def pause(_seconds: float) -> None:
        step = next(steps)
        if step is None:  # put aside, and a new one begun
            log.write_text("6\n", encoding="utf-8")
            return
        with log.open("a", encoding="utf-8") as file:
            file.write(step.lstrip("\n"))

    lines = following(log, pause)
    assert [next(lines), next(lines), next(lines)] == ["four", "five", "6"]
