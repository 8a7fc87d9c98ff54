"""The command line as a process, against the running daemon."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Cli
from tests.e2e.helpers import ENGINE, Daemon

pytestmark = pytest.mark.model


def test_ps_lists_the_engines(cli: Cli, smollm2: Path) -> None:
    done = cli("ps")
    assert (done.returncode, done.stderr) == (0, "")
    header, row = done.stdout.splitlines()
    assert header.split()[:4] == ["ID", "STATE", "MODEL", "N_CTX"]
    assert row.split()[:5] == [ENGINE, "ready", smollm2.name, "4096", "0"]


def test_status_shows_the_daemon_and_an_engine(cli: Cli, daemon: Daemon) -> None:
    done = cli("status", "--url", daemon.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "healthy" in done.stdout.splitlines()[0]
    facts = json.loads(cli("status", ENGINE, "--json").stdout)
    assert (facts["engine_id"], facts["state"]) == (ENGINE, "ready")


def test_a_model_is_loaded_used_and_unloaded(cli: Cli, http: httpx.Client, tiny_gguf: Path) -> None:
    loaded = cli("load", "small", str(tiny_gguf), "--n-ctx", "512", "--set", "cache_type_k=f32")
    assert (loaded.returncode, loaded.stdout) == (0, "small: loaded\n")
    assert all(
        line.startswith("Loading small: ") for line in loaded.stderr.splitlines()
    )  # only a load that takes a while
    parameters = http.get("/engines/small").json()["loading_parameters"]
    assert (parameters["n_ctx"], parameters["cache_type_k"]) == (512, "f32")
    assert cli("run", "small", "Hello", "--max-tokens", "4").returncode == 0
    unloaded = cli("unload", "small")
    assert (unloaded.returncode, unloaded.stdout) == (0, "small: removed\n")
    assert http.get("/engines/small").status_code == 404


def test_what_the_daemon_refuses_is_one_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("load", "small", "nothing.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: '{tmp_path / 'nothing.gguf'}' does not exist")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("piped", [False, True])
def test_a_question_is_answered(cli: Cli, daemon: Daemon, piped: bool) -> None:
    question = "Name the capital city of France."
    prompt = () if piped else (question,)
    done = cli(
        "run", ENGINE, *prompt, "--temperature", "0", "--url", daemon.url, input=question if piped else ""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "The capital city of France is Paris.\n"
