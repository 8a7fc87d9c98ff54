"""`kolosal keys`, and keys of client commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kolosal.commands.address import Address
from kolosal.security.keys import KeyFile, KeyLimits, Scope
from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon

KEY = "a-key-of-our-own-1234"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFile:
    monkeypatch.setenv("KOLOSAL_STATE_DIR", str(tmp_path / "state"))
    return KeyFile(tmp_path / "state" / "keys.json")


def test_a_key_is_printed_once_and_alone(cli: Cli, file: KeyFile) -> None:
    done = cli("keys", "create", "laptop", "--scope", "inference", "--scope", "admin")
    key = done.out.strip()
    assert (done.code, done.out) == (0, f"{key}\n")
    assert "From now on every request needs a key" in done.err
    assert key not in done.err
    assert file.read()[0].scopes == set(Scope)
    assert "From now on" not in cli("keys", "create", "other").err
    listed = cli("keys", "list")
    assert key not in listed.out + cli("keys", "list", "--json").out
    name, key_id, *scopes = listed.out.splitlines()[1].split()[:4]
    assert (name, key_id, scopes) == ("laptop", file.read()[0].id, ["admin", "inference"])


def test_keys_are_listed_for_programs(cli: Cli, file: KeyFile) -> None:
    assert json.loads(cli("keys", "list", "--json").out) == []
    made, _ = file.create("a", [Scope.ADMIN])
    [listed] = json.loads(cli("keys", "list", "--json").out)
    assert listed == {
        "name": "a",
        "id": made.id,
        "scopes": ["admin"],
        "created": made.created and made.created.isoformat(),
        "limits": None,
    }


def test_a_key_is_revoked(cli: Cli, file: KeyFile) -> None:
    file.create("a", [])
    file.create("b", [])
    assert (cli("keys", "revoke", "a").out, cli("keys", "list").out.count("\n")) == ("a: revoked\n", 2)
    assert "No key is left" in cli("keys", "revoke", "b").err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("create", "a b"), "must be 1 to 64 of the characters"),
        (("create", "a", "--scope", "root"), "--scope: must be inference or admin, not 'root'"),
        (("revoke", "a"), "No key has the name or id 'a'"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, file: KeyFile, arguments: tuple[str, ...], error: str) -> None:
    done = cli("keys", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert error in done.err


def test_without_a_home_the_setting_is_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "LOCALAPPDATA", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    done = cli("keys", "list")
    assert (done.code, "auth.keys_file" in done.err) == (2, True)


def test_client_commands_send_the_configured_key(
    cli: Cli, stub: StubDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOLOSAL_API_KEY", KEY)
    assert cli("status", "--url", stub.url).code == 0
    monkeypatch.setenv("KOLOSAL_PORT", stub.url.rpartition(":")[2])
    assert cli("status").code == 0
    monkeypatch.delenv("KOLOSAL_API_KEY")
    assert cli("status").code == 0
    assert stub.authorizations == [f"Bearer {KEY}", f"Bearer {KEY}", None]


def test_a_key_in_the_file_is_for_its_own_daemon(cli: Cli, stub: StubDaemon, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"auth: {{api_key: {KEY}}}\n")
    assert cli("status", "--url", stub.url).code == 0
    assert stub.authorizations == [None]


def test_config_show_does_not_show_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOLOSAL_API_KEY", KEY)
    for done in (cli("config", "show"), cli("config", "show", "--json")):
        assert done.code == 0
        assert "****" in done.out
        assert KEY not in done.out


def test_an_address_does_not_show_its_key() -> None:
    assert KEY not in repr(Address("http://x", KEY))


def test_a_key_can_have_quotas_of_its_own(cli: Cli, file: KeyFile) -> None:
    assert cli("keys", "create", "guest", "--tokens-per-day", "7").code == 0
    [key] = file.read()
    assert key.limits == KeyLimits(tokens_per_day=7)
    assert cli("keys", "create", "other", "--tokens-per-day", "-1").code == 2
