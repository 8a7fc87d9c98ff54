"""What a service is written down as, by each system's rules."""

from __future__ import annotations

import configparser
import plistlib
import shlex
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from kolosal.service.definition import MARK, ServiceDefinition, checked_name
from kolosal.service.errors import ServiceError
from kolosal.service.launchd_plist import plist_bytes
from kolosal.service.systemd_unit import unit_text

PLAIN = ServiceDefinition("kolosal", "/opt/k/bin/python", None, None, None, 30.0)
ALL = ServiceDefinition(
    "models", "/opt/my apps/100%/$HOME/python", PurePosixPath('/srv/a "b"/c.yaml'), 9000, "anna", 600.0
)

LAUNCHD_KEYS = {
    "Label", "ProgramArguments", "EnvironmentVariables", "RunAtLoad", "KeepAlive", "ThrottleInterval", "ExitTimeOut", "ProcessType",
    "StandardOutPath", "StandardErrorPath", "SoftResourceLimits", "WorkingDirectory", "UserName", "Umask",
}  # fmt: skip
"""Of launchd.plist(5), those that are used."""


def unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_a_unit_of_the_system_may_do_little() -> None:
    text = unit_text(PLAIN, user=False)
    service = unit(text)["Service"]
    assert MARK in text
    assert service["ExecStart"] == "/opt/k/bin/python -P -m kolosal serve"
    assert (service["Type"], service["WatchdogSec"], service["Restart"]) == ("notify", "30", "on-failure")
    assert (service["DynamicUser"], service["NoNewPrivileges"], service["ProtectSystem"]) == (
        "yes",
        "yes",
        "strict",
    )
    assert (service["StateDirectory"], service["WorkingDirectory"]) == ("kolosal", "/etc/kolosal")
    assert (service["OOMPolicy"], service["TimeoutStopSec"]) == ("continue", "45")
    assert unit(text)["Install"]["WantedBy"] == "multi-user.target"


def test_a_unit_of_a_user_asks_for_nothing_that_needs_root() -> None:
    parsed = unit(unit_text(ALL, user=True))
    service = parsed["Service"]
    assert not {"DynamicUser", "User", "ProtectSystem", "DeviceAllow", "StateDirectory"} & {*service}
    assert service["NoNewPrivileges"] == "yes"
    assert parsed["Install"]["WantedBy"] == "default.target"


def test_what_means_something_to_systemd_is_quoted() -> None:
    service = unit(unit_text(ALL, user=False))["Service"]
    words = shlex.split(service["ExecStart"])  # systemd's quotes are the shell's
    assert [word.replace("%%", "%").replace("$$", "$") for word in words] == [*ALL.argv]
    assert "%/" not in service["ExecStart"].replace("%%", "")
    assert (service["User"], service["TimeoutStopSec"]) == ("anna", "615")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("user", [False, True])
def test_systemd_understands_all_of_it(tmp_path: Path, user: bool) -> None:
    file = tmp_path / "kolosal-test.service"
    here = ServiceDefinition(
        "kolosal-test", shutil.which("true") or "", PurePosixPath("/srv/a b/c.yaml"), 9000, None, 30.0
    )
    file.write_text(unit_text(here, user=user), encoding="utf-8")
    analyze = shutil.which("systemd-analyze") or ""
    done = subprocess.run(
        [analyze, *(["--user"] if user else []), "--recursive-errors=no", "verify", str(file)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert [line for line in done.stderr.splitlines() if "kolosal-test" in line] == []


def test_an_agent_of_launchd_runs_as_the_user() -> None:
    plist = plistlib.loads(plist_bytes(PLAIN, None, None, PurePosixPath("/Users/a/Library/Logs/k.log")))
    assert {*plist} <= LAUNCHD_KEYS
    assert plist["Label"] == "ai.kolosal.kolosal"
    assert plist["ProgramArguments"] == ["/opt/k/bin/python", "-P", "-m", "kolosal", "serve"]
    assert plist["KeepAlive"] == {"SuccessfulExit": False}
    assert (plist["RunAtLoad"], plist["ExitTimeOut"]) == (True, 45)
    assert not {"UserName", "WorkingDirectory"} & {*plist}


def test_a_daemon_of_launchd_runs_as_an_account() -> None:
    state = PurePosixPath("/Library/Application Support/ai.kolosal.models")
    plist = plistlib.loads(plist_bytes(ALL, state, state, PurePosixPath("/Library/Logs/k.log")))
    assert {*plist} <= LAUNCHD_KEYS
    assert plist["UserName"] == "anna"
    assert plist["ProgramArguments"][-4:] == ["--config", '/srv/a "b"/c.yaml', "--port", "9000"]
    assert plist["EnvironmentVariables"]["KOLOSAL_STATE_DIR"] == str(state)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a b", "ä", "..", "a.service", "x" * 64])
def test_a_name_fits_every_system(name: str) -> None:
    with pytest.raises(ServiceError):
        checked_name(name)
