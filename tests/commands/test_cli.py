"""The client commands against a stub daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kolosal import __version__
from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon

ROOT = Path(__file__).resolve().parent.parent.parent

COMMANDS = [
    "serve",
    "load",
    "unload",
    "ps",
    "logs",
    "status",
    "run",
    "doctor",
    "cluster status",
    "cluster drain",
    "config show",
    "native build",
    "native presets",
]
COMMANDS += [
    f"service {verb}" for verb in ("install", "uninstall", "start", "stop", "restart", "status", "logs")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(cli: Cli, command: str) -> None:
    assert f"Example: kolosal {command}" in cli(*command.split(), "--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(cli: Cli, command: str) -> None:
    documented = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z][a-z-]+", cli(*command.split(), "--help").out)) - {"--help"}
    assert f"kolosal {command}" in documented
    assert [option for option in sorted(options) if option not in documented] == []


def test_version_tells_llama_cpps_too(cli: Cli) -> None:
    ours, llama = cli("--version").out.splitlines()
    assert ours == f"kolosal {__version__}"
    assert re.fullmatch(
        r"llama\.cpp (unknown|[0-9a-f]{7,40}) \(ggml [0-9.]+, llama-cpp-python [0-9.]+\)", llama
    )


def test_importing_the_command_line_loads_no_server_and_no_native_code() -> None:
    code = "import kolosal.cli, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"llama_cpp", "numpy", "starlette", "uvicorn", "httpx"} & set(loaded.stdout.split())


def test_load_sends_an_absolute_path_and_the_given_parameters(
    cli: Cli, stub: StubDaemon, tmp_path: Path
) -> None:
    options = [
        "--n-ctx",
        "512",
        "--main-gpu",
        "1",
        "--set",
        "flash_attn=off",
        "--set",
        "tensor_split=[1, 2.5]",
    ]
    done = cli("load", "tiny", "models/tiny.gguf", *options, "--url", stub.url)
    assert (done.code, done.out) == (0, "tiny: loaded\n")
    assert stub.bodies("POST", "/engines") == [
        {
            "engine_id": "tiny",
            "model_path": str(tmp_path / "models" / "tiny.gguf"),
            "n_ctx": 512,
            "main_gpu_id": 1,
            "flash_attn": "off",
            "tensor_split": [1, 2.5],
        }
    ]


def test_lazy_load_asks_for_no_loading(cli: Cli, stub: StubDaemon) -> None:
    cli("load", "tiny", "tiny.gguf", "--lazy", "--url", stub.url)
    assert stub.bodies("POST", "/engines")[0]["load_immediately"] is False


def test_load_of_a_name_that_is_taken_asks_for_none(cli: Cli, stub: StubDaemon) -> None:
    stub.engines = {"tiny": {"model_path": "other.gguf"}}
    done = cli("load", "tiny", "tiny.gguf", "--url", stub.url)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "Error: There is an engine 'tiny' already: choose another name, or remove it with `kolosal unload tiny`\n"
    )
    assert stub.bodies("POST", "/engines") == []


def test_load_looks_at_the_progress_meanwhile(cli: Cli, stub: StubDaemon) -> None:
    stub.load_steps = [0.1, 0.3, 0.9]
    done = cli("load", "tiny", "tiny.gguf", "--url", stub.url)
    assert (done.code, done.err) == (0, "Loading tiny: 25 %\nLoading tiny: 75 %\n")
    assert len(stub.bodies("GET", "/engines/tiny")) >= 2


@pytest.mark.parametrize("arguments", [("load", "a", "b.gguf"), ("ps",), ("status", "a"), ("unload", "a")])
def test_an_api_error_is_shown_in_the_daemons_words(
    cli: Cli, stub: StubDaemon, arguments: tuple[str, ...]
) -> None:
    stub.refusal = (422, {"error": {"message": "No such tensor"}})
    done = cli(*arguments, "--url", stub.url)
    assert done.code == 1
    assert done.err in ("Error: No such tensor\n", "Error: a: No such tensor\n")


@pytest.mark.parametrize("body", ["<html>", "[1]", "[" * 100_000, '{"error": 5}'])
def test_an_error_without_words_is_shown_by_its_status(cli: Cli, stub: StubDaemon, body: str) -> None:
    stub.refusal = (502, body)
    assert cli("ps", "--url", stub.url).err == "Error: The daemon answered HTTP 502\n"


def test_something_that_is_no_daemon_is_named_so(cli: Cli, stub: StubDaemon) -> None:
    stub.refusal = (200, "<html>")
    assert cli("ps", "--url", stub.url).err == "Error: What answers at this address is not a Kolosal daemon\n"


@pytest.mark.parametrize(
    "arguments", [("load", "a", "b.gguf"), ("ps",), ("status",), ("unload", "a"), ("run", "a", "hi")]
)
def test_no_daemon_is_one_clear_line(cli: Cli, free_port: int, arguments: tuple[str, ...]) -> None:
    url = f"http://127.0.0.1:{free_port}"
    done = cli(*arguments, "--url", url)
    assert (done.code, done.err) == (
        1,
        f"Error: No daemon answers at {url}: start one with `kolosal serve`\n",
    )


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://[", ""])
def test_an_address_that_is_none_is_one_clear_line(cli: Cli, url: str) -> None:
    done = cli("ps", "--url", url)
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_the_address_comes_from_the_settings(
    cli: Cli, stub: StubDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOLOSAL_PORT", stub.url.rpartition(":")[2])
    assert cli("status").code == 0


def test_port_zero_needs_a_url(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOLOSAL_PORT", "0")
    assert cli("ps").code == 2


def test_ps_is_a_table(cli: Cli, stub: StubDaemon) -> None:
    stub.engines = {
        "a": {"model_path": "/models/a.gguf", "loading_parameters": {"n_ctx": 512}, "in_flight": 2},
        "b": {"model_path": "C:\\m\\b\x1b[2J.gguf", "state": "loading", "load_progress": 0.5},
        "c": {"gone": True},
    }
    assert cli("ps", "--url", stub.url).out.splitlines() == [
        "ID  STATE        MODEL      N_CTX  IN FLIGHT  LAST USED",
        "a   ready        a.gguf     512    2          never",
        "b   loading 50%  b[2J.gguf  -      -          never",
    ]


def test_ps_as_json(cli: Cli, stub: StubDaemon) -> None:
    stub.engines = {"a": {"model_path": "/a.gguf", "last_accessed": "2026-11-20T07:00:00Z"}}
    (row,) = json.loads(cli("ps", "--json", "--url", stub.url).out)
    assert (row["engine_id"], row["last_accessed"]) == ("a", "2026-11-20 07:00:00+00:00")


def test_ps_without_engines_says_how_to_add_one(cli: Cli, stub: StubDaemon) -> None:
    assert "kolosal load" in cli("ps", "--url", stub.url).err


def test_status_of_the_daemon_and_of_an_engine(cli: Cli, stub: StubDaemon) -> None:
    stub.engines = {"a/b c": {"model_path": "/a.gguf", "loading_parameters": {"n_ctx": 512}}}
    assert "version:  9.9" in cli("status", "--url", stub.url).out
    assert "loading_parameters\n  n_ctx  512" in cli("status", "a/b c", "--url", stub.url).out
    assert json.loads(cli("status", "a/b c", "--json", "--url", stub.url).out)["model_path"] == "/a.gguf"


def test_status_is_for_eyes(cli: Cli, stub: StubDaemon) -> None:
    used = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
    stub.engines = {
        "a": {
            "pin": True, "idle_ttl_s": 300.0, "expires_in_s": 291.35, "last_error": None, "last_accessed": used,
            "info": {"n_params": 134515008, "size_bytes": 96576768, "tool_format": "generic"},
            "memory": {"host": 633707520, "gpus": {"0": 2147483648}},
        }
    }  # fmt: skip
    lines = cli("status", "a", "--url", stub.url).out.splitlines()
    assert {tuple(line.split(maxsplit=1)) for line in lines if "  " in line} >= {
        ("pin", "yes"),
        ("idle_ttl", "5 min"),
        ("expires_in", "4 min 51 s"),
        ("last_accessed", "3 min ago"),
        ("n_params", "134,515,008"),
        ("size", "92 MiB"),
        ("host", "604 MiB"),
        ("gpus", "0  2.0 GiB"),
    }
    assert "last_error" not in "".join(lines)
    assert "{" not in cli("status", "--url", stub.url).out


def test_unload_names_the_engine_that_is_not_there(cli: Cli, stub: StubDaemon) -> None:
    stub.engines = {"a": {}}
    done = cli("unload", "a", "b", "--url", stub.url)
    assert (done.code, done.out, done.err) == (1, "a: removed\n", "Error: b: Engine not found\n")


def test_unload_can_keep_the_name(cli: Cli, stub: StubDaemon) -> None:
    stub.engines = {"a b": {}}
    done = cli("unload", "a b", "--keep", "--url", stub.url)
    assert (done.code, done.out, done.err) == (0, "a b: unloaded\n", "")
    assert [(method, path) for method, path, _ in stub.received] == [("POST", "/engines/a%20b/unload")]


def test_a_path_that_is_a_url_is_refused(cli: Cli, stub: StubDaemon) -> None:
    assert "download" in cli("load", "a", "https://example.com/a.gguf", "--url", stub.url).err
    assert stub.received == []


@pytest.mark.parametrize("pair", ["n_batch", "n_batch=[1", "x=[&a 1, *a]"])
def test_a_parameter_that_cannot_be_read_is_refused(cli: Cli, stub: StubDaemon, pair: str) -> None:
    done = cli("load", "a", "a.gguf", "--set", pair, "--url", stub.url)
    assert done.code == 2
    assert done.err.startswith("Error: --set")


def test_a_bad_configuration_ends_serve_with_status_2_at_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server:\n  prot: 9000\n", encoding="utf-8")
    command = [sys.executable, "-m", "kolosal", "serve"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=_python_path())
    assert done.returncode == 2
    path = tmp_path / "config.yaml"
    assert done.stderr == f"Error: {path}:2: server.prot: unknown key: did you mean 'server.port'?\n"


def _python_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_an_unknown_variable_is_a_configuration_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOLOSAL_PROT", "1")
    done = cli("config", "show")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "KOLOSAL_PORT" in done.err


def test_config_show_tells_where_values_come_from(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("server: {port: 9000}\nmodels:\n  - {id: a, path: a.gguf}\n", encoding="utf-8")
    monkeypatch.setenv("KOLOSAL_LOG_LEVEL", "debug")
    rows = {tuple(line.split()) for line in cli("config", "show").out.splitlines()}
    assert {
        ("server.host", "127.0.0.1", "default"),
        ("server.port", "9000", f"{file}:1"),
        ("logging.level", "debug", "KOLOSAL_LOG_LEVEL"),
        ("models[a]", str(tmp_path / "a.gguf"), f"{file}:3"),
    } <= rows


def test_config_show_as_json(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("models: [{id: a, path: a.gguf}]\n", encoding="utf-8")
    rows = {row["key"]: row for row in json.loads(cli("config", "show", "--json").out)}
    assert rows["server.port"]["variable"] == "KOLOSAL_PORT"
    assert rows["models[a]"]["value"]["parameters"]["n_ctx"] == 4096
