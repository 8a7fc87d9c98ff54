"""What the daemon refuses to start with: open doors, and files of keys or certificates that are no good."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr

from kolosal.config.errors import ConfigError
from kolosal.config.settings import Settings
from kolosal.errors import KeyMissing
from kolosal.security.keys import ALL_SCOPES, KeyFile
from kolosal.security.startup_checks import check_security, key_file, tls_context
from tests.settings import settings_of

TLS = Path(__file__).parents[1] / "tls"
KEY = "a-key-of-our-own-1234"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "127.8.8.8"])
def test_this_machine_needs_no_key(host: str) -> None:
    assert not check_security(settings_of(host=host), {}).authenticator.needed


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.0.7", "gpu-box", "2001:db8::1", "127.0.0.1.evil.com"]
)
def test_other_machines_need_one(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        check_security(settings_of(host=host, state_dir=str(tmp_path)), {})
    assert "kolosal keys create NAME" in str(raised.value)
    assert "server.allow_open_access" in str(raised.value)
    assert check_security(settings_of(host=host, api_key=SecretStr(KEY)), {}).authenticator.needed
    assert not check_security(settings_of(host=host, allow_open_access=True), {}).authenticator.needed
    KeyFile(tmp_path / "keys.json").create("a", [])
    assert check_security(settings_of(host=host, state_dir=str(tmp_path)), {}).authenticator.needed


def test_the_key_of_the_conversation_engines_files_is_one_of_the_daemons() -> None:
    authenticator = check_security(settings_of(host="0.0.0.0"), {}, "of the file").authenticator
    found = authenticator.identify(("of the file",), "")
    assert found is not None
    assert found.scopes == ALL_SCOPES
    with pytest.raises(KeyMissing):
        authenticator.identify((), "")


def test_where_the_keys_are(tmp_path: Path) -> None:
    def path(settings: Settings, **environ: str) -> Path | None:
        file = key_file(settings, environ)
        return None if file is None else file.path

    assert path(settings_of(keys_file=str(tmp_path / "k")), HOME="/h") == tmp_path / "k"
    assert path(settings_of(state_dir=str(tmp_path)), HOME="/h") == tmp_path / "keys.json"
    assert path(Settings()) is None


@pytest.mark.parametrize("name", ["api_key_file", "keys_file"])
def test_keys_that_cannot_be_read_end_the_start(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        check_security(settings_of(**{name: str(tmp_path)}), {})


def test_a_key_of_a_file_counts(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(f"{KEY}\n")
    found = check_security(settings_of(api_key_file=str(tmp_path / "keys.txt")), {}).authenticator.identify(
        (KEY,), ""
    )
    assert found is not None
    assert found.name == "keys.txt:1"


def test_tls_is_1_2_or_later() -> None:
    context = tls_context(str(TLS / "certificate.pem"), str(TLS / "key.pem"))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls_context(None, None) is None


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("certificate.pem", None, r"^server\.tls_key: is missing"),
        (None, "key.pem", r"^server\.tls_certificate: is missing"),
        ("no-such.pem", "key.pem", r"^server\.tls_certificate: .*no-such\.pem: cannot be read: No such file"),
        ("certificate.pem", "no-such.pem", r"^server\.tls_key: .*cannot be read"),
        ("certificate.pem", "other_key.pem", r"with its key"),
        ("certificate.pem", "locked_key.pem", r"pass phrase"),
        ("key.pem", "key.pem", r"no certificate in PEM form"),
    ],
)
def test_files_that_are_no_good_are_named(certificate: str | None, key: str | None, message: str) -> None:
    files = [None if name is None else str(TLS / name) for name in (certificate, key)]
    with pytest.raises(ConfigError, match=message) as raised:
        tls_context(*files)
    assert "\n" not in str(raised.value)
