"""The API key out of a Key Vault: the real SDK against a vault on this machine."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kolosal.conversation.key_vault import KeyVaultError, load_api_key
from kolosal.conversation.startup import load_conversation
from tests.conversation.vault import StaticCredential, Vault, vault
from tests.e2e.helpers import DEADLINE_S, user_environment

SECRET = "s3cret of the vault"
NAMES = {"API_KEY_SECRET_NAME": "chat-key"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Vault]:
    with vault(tmp_path) as each:
        each.secrets["chat-key"] = SECRET
        yield each


def options(running: Vault, **more: Any) -> dict[str, Any]:
    """What the SDK is told about a vault that is not at Azure: its certificate, and that its name is no vault's."""
    return {
        "connection_verify": str(running.certificate),
        "verify_challenge_resource": False,
        "retry_total": 0,
        **more,
    }


def test_c12_the_key_is_asked_for_with_a_token_of_the_challenge(
    running: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    credential = StaticCredential()

    key = load_api_key(running.url, "chat-key", credential, **options(running))

    assert key == SECRET
    assert [with_token for _, with_token in running.requests] == [False, True]
    assert credential.asked == [(("https://vault.azure.net/.default",), "tenant")]
    assert SECRET not in caplog.text


def test_c12_the_daemon_gets_its_key_at_start(running: Vault) -> None:
    def from_vault(url: str, name: str) -> str:
        return load_api_key(url, name, StaticCredential(), **options(running))

    assert load_conversation({**NAMES, "KEYVAULT_URL": running.url}, from_vault).api_key == SECRET


@pytest.mark.parametrize(
    ("name", "token", "reason"),
    [("other-key", None, "SecretNotFound"), ("chat-key", "wrong", "Forbidden")],
)
def test_c12_what_the_vault_refuses_is_told(
    running: Vault, name: str, token: str | None, reason: str
) -> None:
    credential = StaticCredential() if token is None else StaticCredential(token)

    with pytest.raises(RuntimeError, match=f"^Failed to load API key from Key Vault: .*{reason}"):
        load_api_key(running.url, name, credential, **options(running))


def test_c12_an_empty_secret_is_no_key(running: Vault) -> None:
    running.secrets["chat-key"] = ""
    with pytest.raises(KeyVaultError, match="is empty"):
        load_api_key(running.url, "chat-key", StaticCredential(), **options(running))


def test_c12_without_the_sdk_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.keyvault.secrets", None)
    with pytest.raises(KeyVaultError, match=r"pip install 'kolosal\[azure\]'"):
        load_api_key("https://v.vault.azure.net", "chat-key", StaticCredential())


@pytest.mark.parametrize("url", ["", "not a url", "http://127.0.0.1:1"])
def test_c12_what_is_no_vault_is_told(url: str) -> None:
    with pytest.raises(KeyVaultError, match="Failed to load API key from Key Vault: "):
        load_api_key(url, "chat-key", StaticCredential(), retry_total=0)


def test_c12_without_its_key_the_daemon_does_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"https://127.0.0.1:{nobody.getsockname()[1]}"
    names = {**NAMES, "KEYVAULT_URL": url}

    done = subprocess.run(
        [sys.executable, "-m", "kolosal", "serve", "--port", "0"],
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
        cwd=tmp_path,
        env=user_environment(tmp_path) | names,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert "Error: Failed to load API key from Key Vault: " in done.stderr
