"""`kolosal list`, `show` and `rm`: the library as people and programs read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon

TINY: dict[str, Any] = {
    "name": "org/Tiny-Q4_K_M", "source": "huggingface", "size": 97_677_216, "parameters": 134_515_008,
    "files": [{"path": "/m/Tiny-Q4_K_M.gguf", "size": 97_677_216}], "projector": None, "quantization": "Q4_K_M",
    "n_ctx_train": 8192, "capabilities": ["completion", "tools"], "digest": None, "error": None, "status": "loaded",
    "last_used_at": "2026-01-02T03:04:05Z",
}  # fmt: skip
BROKEN = {
    **TINY,
    "name": "broken",
    "source": "folder",
    "parameters": None,
    "quantization": None,
    "n_ctx_train": None,
}
BROKEN |= {"error": "It was cut off", "status": "unloaded", "last_used_at": None}
FOLDERS = [{"source": "folder", "path": "/home/models", "problem": None}]


@pytest.fixture
def library(stub: StubDaemon) -> StubDaemon:
    stub.answers = {
        "/v1/library": {"models": [TINY, BROKEN], "folders": FOLDERS},
        "/v1/library/tiny": TINY,
        "/v1/library/org%2FTiny-Q4_K_M": {"name": "org/Tiny-Q4_K_M", "freed_bytes": 1 << 30},
        "/v1/model-settings/tiny": {
            "holds": [{"name": "temperature", "value": 0.2, "origin": "models.yaml:3"}]
        },
    }
    return stub


def test_models_are_listed_and_damaged_ones_say_why(cli: Cli, library: StubDaemon) -> None:
    done = cli("list", "--url", library.url)
    header, tiny, broken = done.out.splitlines()
    assert header.split() == ["NAME", "SIZE", "WEIGHTS", "QUANT", "CONTEXT", "FROM", "STATUS", "LAST", "USED"]
    expected = ["org/Tiny-Q4_K_M", "93", "MiB", "134.52M", "Q4_K_M", "8192", "Hugging", "Face", "loaded"]
    assert tiny.split()[:9] == expected
    assert tiny.endswith(" ago")
    assert broken.split()[-2:] == ["damaged", "never"]
    assert (done.code, done.err) == (0, "broken: It was cut off\n")


def test_words_choose_and_programs_get_json(cli: Cli, library: StubDaemon) -> None:
    assert json.loads(cli("list", "TINY", "q4", "--json", "--url", library.url).out) == [TINY]
    assert cli("list", "nothing", "--url", library.url).err == (
        "No model of that name yet: put a .gguf file into /home/models\n"
    )


def test_a_model_is_shown_with_where_its_settings_come_from(cli: Cli, library: StubDaemon) -> None:
    lines = {tuple(line.split()) for line in cli("show", "tiny", "--url", library.url).out.splitlines()}
    assert lines >= {
        ("size:", "93", "MiB"),
        ("capabilities:", "completion,", "tools"),
        ("file:", "/m/Tiny-Q4_K_M.gguf", "(93", "MiB)"),
        ("temperature", "0.2", "models.yaml:3"),
    }
    shown = json.loads(cli("show", "tiny", "--json", "--url", library.url).out)
    assert (shown["name"], shown["settings"][0]["value"]) == (TINY["name"], 0.2)


def test_an_engine_that_is_not_in_the_library_is_shown_too(cli: Cli, stub: StubDaemon) -> None:
    stub.engines = {"mine": {"model_path": "/x.gguf"}}
    assert "model_path:  /x.gguf" in cli("show", "mine", "--url", stub.url).out
    assert cli("show", "nobody", "--url", stub.url).err == "Error: Engine not found\n"


def test_a_model_is_removed_when_that_was_meant(cli: Cli, library: StubDaemon) -> None:
    refused = cli("rm", "tiny", "--url", library.url)
    assert (refused.code, refused.err) == (
        1,
        "Error: Removing org/Tiny-Q4_K_M (93 MiB, Hugging Face) needs --yes where nobody can be asked\n",
    )
    done = cli("rm", "tiny", "--yes", "--url", library.url)
    assert (done.code, done.out) == (0, "org/Tiny-Q4_K_M: removed, 1.0 GiB freed\n")
    assert [path for method, path, _ in library.received if method == "DELETE"] == [
        "/v1/library/org%2FTiny-Q4_K_M"
    ]
    as_json = cli("rm", "tiny", "--yes", "--json", "--url", library.url)
    assert json.loads(as_json.out) == [{"name": "org/Tiny-Q4_K_M", "freed_bytes": 1 << 30}]


def test_a_model_of_the_library_can_be_talked_to(cli: Cli, stub: StubDaemon) -> None:
    stub.answers = {"/v1/models/tiny": {"id": "tiny"}}
    assert cli("run", "tiny", "Hello", "--url", stub.url).out == "Hi\n"
