"""`kolosal create`, `kolosal cp`, and the lines of `kolosal show` about what holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import JsonValue

from kolosal.commands.held_settings import held_settings
from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon


def test_options_win_over_a_modelfile(cli: Cli, stub: StubDaemon, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(
        "FROM tiny\nSYSTEM One.\nPARAMETER top_k 3\nPARAMETER stop a", encoding="utf-8"
    )
    stub.answers["/api/create"] = {"status": "success", "notes": ["using tiny"]}
    made = cli(
        "create", "m", "-f", "Modelfile", "--system", "Two.", "-p", "top_k=4", "-p", "temperature=0.5", "--url", stub.url
    )  # fmt: skip
    assert (made.code, made.out) == (0, "using tiny\nm is made of tiny\n")
    assert stub.bodies("POST", "/api/create") == [
        {"model": "m", "stream": False, "system": "Two.", "from": "tiny", "parameters": {"top_k": 4, "stop": ["a"], "temperature": 0.5}}
    ]  # fmt: skip


def test_a_file_is_sent_first(cli: Cli, stub: StubDaemon, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    digest = f"sha256:{hashlib.sha256(b'GGUF').hexdigest()}"
    stub.answers["/api/create"] = {"status": "success"}
    assert cli("create", "m", "--from", "m.gguf", "--url", stub.url).code == 0
    [body] = stub.bodies("POST", "/api/create")
    assert body == {"model": "m", "stream": False, "files": {"m.gguf": digest}}


def test_another_name(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/api/copy"] = {}
    made = cli("cp", "tiny", "gpt-4o", "--url", stub.url)
    assert (made.code, made.out) == (0, "gpt-4o is another name of tiny\n")
    assert stub.bodies("POST", "/api/copy") == [{"source": "tiny", "destination": "gpt-4o"}]


def test_what_is_wrong_is_one_line(cli: Cli, stub: StubDaemon, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM tiny\nHEAT 3", encoding="utf-8")
    cases: tuple[tuple[list[str], str], ...] = (
        (["-f", "Modelfile"], "Modelfile: line 2 of the Modelfile: 'HEAT' is no command of a Modelfile"),
        (["-f", "no"], "no: cannot be read: No such file or directory"),
        ([], "give --from MODEL, or a Modelfile with -f FILE"),
        (["--from", "tiny", "-p", "heat"], "--parameter: must be KEY=VALUE, not 'heat'"),
        (["--from", "no.gguf"], "no.gguf: there is no such file"),
    )
    for arguments, message in cases:
        done = cli("create", "m", *arguments, "--url", stub.url)
        assert (done.code, done.err) == (1, f"Error: {message}\n")


def test_what_holds_is_a_table() -> None:
    rows: list[JsonValue] = [
        {"name": "parameters.n_ctx", "value": 4096, "origin": "default"},
        {"name": "sampling.top_k", "value": 3, "origin": "models.yaml:3: models.m.sampling.top_k"},
        {"name": "system", "value": "Two\nlines " + "x" * 60, "origin": "models.yaml:4: models.m.system"},
    ]
    assert held_settings({"holds": rows}) == [
        "sampling.top_k  3                                         models.yaml:3: models.m.sampling.top_k",
        "system          Two lines xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…  models.yaml:4: models.m.system",
    ]
    assert held_settings({"holds": rows[:1]})[0].startswith("Nothing is said of this model")
