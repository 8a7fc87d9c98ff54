"""The four YAML files: found, with their placeholders replaced, and what the daemon takes from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from kolosal.commands.address import Address
from kolosal.config.errors import ConfigError
from kolosal.config.load import load_settings
from kolosal.config.settings import Settings
from kolosal.conversation.key_vault import KeyVaultError
from kolosal.conversation.model_loading import initialize
from kolosal.conversation.parameters import GenerationParameters, loading_parameters
from kolosal.conversation.placeholders import resolve
from kolosal.conversation.startup import client_key, daemon_source, load_conversation
from kolosal.conversation.yaml_loading import (
    load_azure_config,
    load_chat_server_config,
    load_model_config,
    load_system_prompt,
    load_yaml,
)
from kolosal.engines.parameters import SplitMode
from kolosal.errors import ModelFileError
from tests.settings import settings_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_SERVER_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_c11_the_package_has_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLM_SERVER_CONFIG_DIR", "CHAT_SERVER_HOST", "CHAT_SERVER_PORT", "CHAT_SERVER_API_KEY", "KEYVAULT_URL",
                 "API_KEY_SECRET_NAME"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)

    model = load_model_config()
    assert (model["device"], model["parameters"]["temperature"], model["parameters"]["max_new_tokens"]) == (
        "auto",
        0.7,
        4096,
    )
    assert load_chat_server_config() == load_azure_config() == {}
    assert {"assistant", "reviser"} <= load_system_prompt().keys()
    assert load_chat_server_config().get("port", 8000) == 8000


def test_c11_a_folder_overrides_them(folder: Path) -> None:
    (folder / "system_prompt_config.yaml").write_text("system_prompts:\n  code_reviewer: You review code.\n")
    (folder / "model_config.yaml").write_text(
        "model:\n  id: ${MODEL:-tiny.gguf}\n  device: cuda:0\n  parameters: {temperature: 0.3, do_sample: True}\n"
    )
    (folder / "custom.yaml").write_text("a: 1\n")

    assert load_system_prompt() == {"code_reviewer": "You review code."}
    assert load_model_config()["id"] == "tiny.gguf"
    assert load_yaml("custom.yaml") == load_yaml(folder / "custom.yaml") == {"a": 1}


def test_c11_a_relative_path_starts_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "custom_model_config.yaml").write_text("model: {id: a}\n")
    monkeypatch.chdir(tmp_path)

    assert load_yaml("custom_model_config.yaml") == {"model": {"id": "a"}}
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        load_yaml("nothing.yaml")


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "a: !!python/object/apply:os.getcwd []"])
def test_a_file_that_is_no_mapping_is_refused(text: str, folder: Path) -> None:
    (folder / "model_config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"model_config\.yaml"):
        load_model_config()


@pytest.mark.parametrize(
    ("written", "environ", "read"),
    [
        ({"server": {"host": "CHAT_SERVER_HOST"}}, {}, {"server": {}}),
        ({"server": {"host": "CHAT_SERVER_HOST"}}, {"CHAT_SERVER_HOST": "0.0.0.0"}, {"server": {"host": "0.0.0.0"}}),
        ({"server": {"host": "MY_HOST"}}, {"MY_HOST": "::1"}, {"server": {"host": "::1"}}),
        ({"server": {"host": "localhost", "port": 8000}}, {}, {"server": {"host": "localhost", "port": 8000}}),
        ({"azure": {"key_vault_url": "KEYVAULT_URL"}}, {"KEYVAULT_URL": ""}, {"azure": {}}),
        ({"model": {"id": "MODEL"}}, {"MODEL": "x"}, {"model": {"id": "MODEL"}}),
        ({"model": {"id": "${MODEL}"}}, {"MODEL": "x"}, {"model": {"id": "x"}}),
        ({"model": {"id": "${MODEL}"}}, {}, {"model": {}}),
        ({"model": {"id": "a/${MODEL:-b}/c"}}, {}, {"model": {"id": "a/b/c"}}),
        ({"model": {"id": "a${MODEL}c", "x": None}}, {}, {"model": {"id": "ac", "x": None}}),
        ({"a": ["${X:-1}", 2]}, {}, {"a": ["1", 2]}),
    ],
)  # fmt: skip
def test_c11_placeholders(written: Any, environ: dict[str, str], read: Any) -> None:
    assert resolve(written, environ) == read


def test_c11_parameters_are_checked_and_used(folder: Path) -> None:
    given = {
        "temperature": 0.3,
        "top_p": 0.8,
        "repetition_penalty": 1.1,
        "max_new_tokens": 9,
        "use_cache": True,
    }
    sampling = GenerationParameters().changed(given).sampling()

    assert (sampling.temperature, sampling.top_p, sampling.repeat_penalty, sampling.max_tokens) == (
        0.3,
        0.8,
        1.1,
        9,
    )
    assert GenerationParameters(do_sample=False).sampling().temperature == 0
    with pytest.raises(ValueError, match="top_p"):
        GenerationParameters().changed({"top_p": 2})


@pytest.mark.parametrize(
    ("device", "layers", "gpu", "split"),
    [
        ("auto", "auto", 0, SplitMode.LAYER),
        ("cpu", 0, 0, SplitMode.LAYER),
        ("cuda", -1, 0, SplitMode.LAYER),
        ("cuda:1", -1, 1, SplitMode.NONE),
        (2, -1, 2, SplitMode.NONE),
    ],
)
def test_devices(device: str | int, layers: int, gpu: int, split: SplitMode) -> None:
    parameters = loading_parameters(device)
    assert (parameters.n_gpu_layers, parameters.main_gpu_id, parameters.split_mode) == (layers, gpu, split)


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:99", -1, "", "²"])
def test_an_unknown_device_is_refused(device: str | int) -> None:
    with pytest.raises(ValueError, match="device must be"):
        loading_parameters(device)


@pytest.mark.parametrize("model_id", ["", None, "meta-llama/Llama-3.1-8B-Instruct"])
def test_nothing_is_downloaded(model_id: str | None, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="model_id is"):
        initialize("cpu", model_id, models_dir=tmp_path)


def test_c13_the_daemon_listens_where_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "server_config.yaml").write_text(
        "server: {host: CHAT_SERVER_HOST, port: 9123, api_key: MY_KEY}\n"
    )
    environ = {"LLM_SERVER_CONFIG_DIR": str(tmp_path), "CHAT_SERVER_HOST": "127.0.0.2", "MY_KEY": "secret"}
    base, conversation = daemon_source(environ), load_conversation(environ)

    settings = load_settings(environ=environ, base=base).settings
    assert (settings.server.host, settings.server.port, conversation.api_key) == ("127.0.0.2", 9123, "secret")
    flags = load_settings({"port": 9}, environ=environ | {"KOLOSAL_HOST": "::1"}, base=base).settings
    assert (flags.server.host, flags.server.port) == ("::1", 9)
    assert "secret" not in repr(conversation)


def test_without_files_nothing_is_said() -> None:
    assert (daemon_source({}), load_conversation({}).api_key) == (None, None)
    assert load_conversation({"CHAT_SERVER_API_KEY": "secret"}).api_key == "secret"


def test_commands_send_the_key_of_the_file_but_ask_no_vault() -> None:
    environ = {"CHAT_SERVER_API_KEY": "secret", "KEYVAULT_URL": "https://v", "API_KEY_SECRET_NAME": "n"}
    key = client_key(environ)
    assert Address.of(Settings(), key).api_key == "secret"
    assert Address.of(settings_of(api_key=SecretStr("a-key-of-settings")), key).api_key == "a-key-of-settings"
    assert (client_key({}), Address.of(Settings()).api_key) == (None, None)


def test_a_model_of_the_file_is_an_engine(tmp_path: Path) -> None:
    (tmp_path / "model_config.yaml").write_text(
        "model: {id: tiny.gguf, device: cpu, parameters: {top_p: 0.5}}\n"
    )
    environ = {"LLM_SERVER_CONFIG_DIR": str(tmp_path)}
    base = daemon_source(environ)

    assert base is not None
    [entry] = base.models
    assert (entry.id, entry.path, entry.parameters.n_gpu_layers) == ("tiny", str(tmp_path / "tiny.gguf"), 0)
    assert load_conversation(environ).parameters.top_p == 0.5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("server_config.yaml", "server: {port: many}"),
        ("model_config.yaml", "model: {parameters: {beams: 4}}"),
        ("system_prompt_config.yaml", "system_prompts: {assistant: 5}"),
        ("azure_config.yaml", "azure: 5"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    environ = {"LLM_SERVER_CONFIG_DIR": str(tmp_path)}
    with pytest.raises(ConfigError, match=str(tmp_path)):
        (daemon_source(environ), load_conversation(environ))


def test_c12_the_vault_goes_before_the_file() -> None:
    asked: list[tuple[str, str]] = []

    def vault(url: str, name: str) -> str:
        asked.append((url, name))
        return "from the vault"

    names = {
        "KEYVAULT_URL": "https://v.vault.azure.net",
        "API_KEY_SECRET_NAME": "key",
        "CHAT_SERVER_API_KEY": "plain",
    }
    assert load_conversation(names, vault).api_key == "from the vault"
    assert asked == [("https://v.vault.azure.net", "key")]
    assert load_conversation({"KEYVAULT_URL": "https://v"}, vault).api_key is None


def test_c12_a_vault_that_fails_stops_the_start() -> None:
    def vault(_url: str, _name: str) -> str:
        raise KeyVaultError("no")

    with pytest.raises(RuntimeError, match="Failed to load API key from Key Vault: no"):
        load_conversation({"KEYVAULT_URL": "https://v", "API_KEY_SECRET_NAME": "key"}, vault)
