"""Every way a configuration can be wrong, and that its one line names the source and the key."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kolosal.config.errors import ConfigError
from kolosal.config.load import load_settings
from kolosal.config.yaml_file import MAX_CONFIG_BYTES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.yaml"


def test_a_wrong_key_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ={"KOLOSAL_API_KEY": "my-secret"})
    assert "my-secret" not in str(raised.value) + str(raised.value.__cause__)


def message(file: Path, text: str | bytes) -> str:
    """What is said about a file of this text, without the file's path."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as raised:
        load_settings(config_path=file, environ={})
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(str(file))
    return text.removeprefix(str(file))


MODEL = "models:\n  - id: a\n    path: a.gguf\n    "


@pytest.mark.fault("C1")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server:\n  prot: 1", ":2: server.prot: unknown key: did you mean 'server.port'?"),
        ("server: {level: debug}", ":1: server.level: unknown key: did you mean 'logging.level'?"),
        (
            "server: {max_body_bytes: 1}",
            ":1: server.max_body_bytes: unknown key: did you mean 'server.max_request_size'?",
        ),
        (
            "audio: {enabled: true}",
            ":1: audio: unknown key: known are activity, auth, cluster, documents, downloads, engines, library, logging, models, openai, responses, rpc, server, sessions, store",
        ),
        ("logging: {shape: x}", ":1: logging.shape: unknown key: known are logging.level, logging.format"),
        (MODEL + "pth: b", ":4: models[0].pth: unknown key: did you mean 'path'?"),
        (MODEL + "parameters: {}", ":4: models[0].parameters: unknown key"),
        (
            MODEL + "load_params: {n_ctxx: 1}",
            ":4: models[0].load_params.n_ctxx: unknown key: did you mean 'n_ctx'?",
        ),
        ("sever: {port: 1}", ":1: sever: unknown key: did you mean 'server'?"),
        ("port: 1", ":1: port: unknown key: did you mean 'server.port'?"),
        ("? [a]\n: 1", ":1: a key must be a plain word"),
    ],
)
def test_unknown_keys(file: Path, text: str, expected: str) -> None:
    assert message(file, text).startswith(expected)


@pytest.mark.fault("C1")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {port: 99999}", ":1: server.port: must be less than or equal to 65535, not 99999"),
        ('server: {port: "80"}', ":1: server.port: must be a valid integer, not '80'"),
        ("server: {port: }", ":1: server.port: must be a valid integer, not None"),
        ("server: {host: 1}", ":1: server.host: must be text, not 1: put it in quotes"),
        ("server: {host: a b}", ":1: server.host: holds a character that is not allowed here, not 'a b'"),
        (
            "logging: {level: loud}",
            ":1: logging.level: must be 'debug', 'info', 'warning' or 'error', not 'loud'",
        ),
        ("logging: {access_log: yes}", ":1: logging.access_log: must be true or false, not 'yes'"),
        ("engines: {stop_grace_s: 1e999}", ":1: engines.stop_grace_s: must be a finite number"),
        ("engines: {stop_grace_s: .nan}", ":1: engines.stop_grace_s: must be a valid number, not '.nan'"),
        ("auth: {api_key: secret}", ":1: auth.api_key: must be text of 16 to 512 characters"),
        (
            "store: {url: 'mysql://user:password@db'}",
            ":1: store.url: must be sqlite:///PATH, or postgresql://USER:PASSWORD@HOST/DATABASE",
        ),
        ("auth: {api_key: 12345678}", ":1: auth.api_key: must be text of 16 to 512 characters"),
        (
            "server: {cors_origins: ['*']}",
            ":1: server.cors_origins: holds a character that is not allowed here",
        ),
        ("server: [1]", ":1: server: must be a mapping of keys to values"),
        ("- 1", ": must be a mapping of keys to values"),
        ("models: 3", ":1: models: must be a list of engines"),
        ("models: [3]", ":1: models[0]: must be a mapping of keys to values, not 3"),
        ("models:\n  - {id: a}", ":2: models[0].path: is missing"),
        ("models:\n  - {path: a}", ":2: models[0].id: is missing"),
        ("models: [{id: a/../b, path: a}]", ":1: models[0].id: holds a character"),
        (MODEL + "load_params: [1]", ":4: models[0].load_params: must be a mapping"),
        (
            MODEL + "load_params:\n      n_ctx: -1",
            ":5: models[0].load_params.n_ctx: must be greater than or equal to 0",
        ),
        (MODEL + "main_gpu_id: 99", ":4: models[0].main_gpu_id: must be less than or equal to 15, not 99"),
        (MODEL + "load_at_startup: 1", ":4: models[0].load_at_startup: must be true or false, not 1"),
        ("models: [{id: a, path: http://x}]", ":1: models[0].path: must be a file on this machine"),
    ],
)
def test_wrong_values(file: Path, text: str, expected: str) -> None:
    assert message(file, text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {port: 1, port: 2}", ":1: server.port: given twice, first on line 1"),
        (
            "models:\n  - {id: a, path: a}\n  - {id: a, path: b}",
            ":3: models[1].id: the id 'a' is given twice",
        ),
        (
            MODEL + "load_immediately: true\n    load_at_startup: true",
            ":5: models[0].load_at_startup: means the same as",
        ),
        (
            MODEL + "main_gpu_id: 1\n    load_params: {main_gpu_id: 1}",
            ":5: models[0].load_params.main_gpu_id: means the same",
        ),
    ],
)
def test_things_said_twice(file: Path, text: str, expected: str) -> None:
    assert message(file, text).startswith(expected)


@pytest.mark.fault("C1")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\n b: 2", ":2: not valid YAML: "),
        ("a: 1\n---\nb: 2", ":2: not valid YAML: "),
        ("a: &x 1\nb: *x", ":2: not valid YAML: aliases (*name) are not supported"),
        ("server: {port: !!python/object:os.system x}", ":1: server.port: the tag"),
        ("server: {port: !!int x}", ":1: server.port: not a usable value"),
        ("server: {port: " + "9" * 5000 + "}", ":1: server.port: not a usable value"),
        ('server: {host: "\\ud800"}', ":1: server.host: not a usable value"),
        ("[" * 20_000, ": nested too deeply"),
        (b"\xff\xfe\x00", ": not valid YAML: "),
        (b"a: \x00", ": not valid YAML: "),
        (b"a: \x80", ": not valid YAML: "),
        (b"#" * (MAX_CONFIG_BYTES + 1), ": longer than 1048576 bytes"),
    ],
)
def test_not_yaml(file: Path, text: str | bytes, expected: str) -> None:
    assert message(file, text).startswith(expected)


def test_a_file_that_was_named_must_exist(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"test\.yaml: cannot be read: No such file"):
        load_settings(config_path=file, environ={})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        load_settings(config_path=tmp_path, environ={})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows guesses where others have their homes")
def test_a_home_that_is_not_there(file: Path) -> None:
    assert message(file, "models: [{id: a, path: ~nobody-at-all/x}]").startswith(":1: models[0].path: ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs in the file system")
def test_a_pipe_is_not_waited_for(file: Path) -> None:
    assert sys.platform != "win32"  # for the type checker
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_settings(config_path=file, environ={})


@pytest.mark.fault("C1")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_we_may_not_read(file: Path) -> None:
    file.touch(mode=0o000)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_settings(config_path=file, environ={})


@pytest.mark.fault("C1")
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"KOLOSAL_PORT": "x"}, "KOLOSAL_PORT (environment): must be a valid integer"),
        ({"KOLOSAL_PORT": "99999"}, "KOLOSAL_PORT (environment): must be less than or equal to 65535"),
        ({"KOLOSAL_PROT": "1"}, "KOLOSAL_PROT (environment): unknown variable: did you mean 'KOLOSAL_PORT'?"),
        (
            {"KOLOSAL_API_KEY": "my-secret"},
            "KOLOSAL_API_KEY (environment): must be text of 16 to 512 characters",
        ),
        ({"KOLOSAL_MODELS": ""}, "KOLOSAL_MODELS (environment): unknown variable"),
        (
            {"KOLOSAL_ACCESS_LOG": "maybe"},
            "KOLOSAL_ACCESS_LOG (environment): must be true or false, not 'maybe'",
        ),
    ],
)
def test_the_environment(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(environ=environ)
    assert str(raised.value).startswith(expected)


@pytest.mark.parametrize(
    ("flags", "models", "expected"),
    [
        ({"port": -1}, [], "--port: must be greater than or equal to 0, not -1"),
        ({"log_level": "loud"}, [], "--log-level: must be 'debug'"),
        ({}, ["a"], "--model: must be ID=PATH, not 'a'"),
        ({}, ["a="], "--model: must be ID=PATH"),
        ({}, ["=b"], "--model: must have at least 1 character"),
        ({}, ["a=b", "a=c"], "--model: the id 'a' is given twice"),
        ({}, ["a=https://b"], "--model: must be a file on this machine"),
        ({}, [f"{i}=b" for i in range(1001)], "--model: must have at most 1000 items"),
    ],
)
def test_the_flags(flags: dict[str, object], models: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(flags, models=models, environ={})
    assert str(raised.value).startswith(expected)


def test_too_many_engines_in_all(file: Path) -> None:
    file.write_text("models:\n" + "".join(f"  - {{id: m{i}, path: x}}\n" for i in range(1000)))
    with pytest.raises(ConfigError, match="1001 engines"):
        load_settings(models=["a=b"], config_path=file, environ={})
