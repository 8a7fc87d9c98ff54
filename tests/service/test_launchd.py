"""Agents of launchd over a launchctl that only takes notes."""

from __future__ import annotations

import os
import plistlib
import sys
from pathlib import Path

import pytest

from kolosal.service.definition import ServiceDefinition
from kolosal.service.errors import ServiceError

if sys.platform == "win32":
    pytest.skip("launchd is macOS's", allow_module_level=True)

from kolosal.service.launchd import Launchd

LAUNCHCTL = """#!/bin/sh
echo "$@" >> "{notes}"
case "$1" in
  bootstrap) touch "{loaded}";;
  bootout) rm "{loaded}";;
  print) test -e "{loaded}";;
esac
"""
DEFINITION = ServiceDefinition("kolosal", sys.executable, None, 9000, None, 30.0)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What launchctl was asked."""
    tool, notes = tmp_path / "bin" / "launchctl", tmp_path / "notes"
    tool.parent.mkdir()
    tool.write_text(LAUNCHCTL.format(notes=notes, loaded=tmp_path / "loaded"), encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return notes


def test_an_agent_is_installed_used_and_removed(notes: Path, tmp_path: Path) -> None:
    manager = Launchd(user=True)
    place = manager.install(DEFINITION)
    plist = Path(place.definition)
    assert plistlib.loads(plist.read_bytes())["ProgramArguments"][-2:] == ["--port", "9000"]
    with pytest.raises(ServiceError, match="already"):
        manager.install(DEFINITION)
    manager.start("kolosal")
    assert manager.status("kolosal") == 0
    manager.start("kolosal")  # one that runs is left alone, or begun again by launchd
    manager.stop("kolosal")
    assert manager.status("kolosal") == 3
    manager.uninstall("kolosal", keep_state=False)
    assert not plist.exists()
    domain = f"gui/{os.getuid()}"
    asked = [line for line in notes.read_text(encoding="utf-8").splitlines() if not line.startswith("print")]
    assert asked == [
        f"bootstrap {domain} {plist}",
        f"kickstart {domain}/ai.kolosal.kolosal",
        f"bootout {domain}/ai.kolosal.kolosal",
    ]


def test_what_is_not_installed_is_said_so(notes: Path) -> None:
    for act in (Launchd(user=True).start, Launchd(user=True).stop, Launchd(user=True).status):
        with pytest.raises(ServiceError, match="kolosal service install"):
            act("kolosal")


def test_a_daemon_of_the_system_needs_an_account(notes: Path) -> None:
    with pytest.raises(ServiceError, match="--account"):
        Launchd(user=False).install(DEFINITION)


def test_an_install_that_fails_leaves_nothing(notes: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "Library").mkdir(parents=True)
    (tmp_path / "home" / "Library" / "LaunchAgents").touch()  # a file where the folder should be
    with pytest.raises(ServiceError, match="cannot be installed"):
        Launchd(user=True).install(DEFINITION)
    assert [path.name for path in (tmp_path / "home").rglob("*")] == ["Library", "LaunchAgents"]
