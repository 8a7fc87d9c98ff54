"""`ps --watch` against a stub daemon that ends."""

from __future__ import annotations

import json

from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon


def test_watching_shows_the_engines_at_once_and_ends_with_the_daemon(cli: Cli, stub: StubDaemon) -> None:
    stub.engines["tiny"] = {"model_path": "/m/tiny.gguf", "in_flight": 2}
    stub.happenings.append('event: request.started\ndata: {"engine_id": "tiny"}')
    done = cli("ps", "--watch", "--url", stub.url)
    assert done.code == 1
    assert done.out.startswith("ID    STATE  MODEL")
    assert "tiny  ready  tiny.gguf" in done.out
    assert done.err == f"Error: The daemon at {stub.url} has stopped\n"


def test_watching_for_programs_is_one_list_a_line(cli: Cli, stub: StubDaemon) -> None:
    stub.engines["tiny"] = {"model_path": "/m/tiny.gguf"}
    lines = cli("ps", "-w", "--json", "--url", stub.url).out.splitlines()
    assert [json.loads(line)[0]["engine_id"] for line in lines] == ["tiny"] * len(lines)
    assert lines


def test_what_the_daemon_refuses_is_told(cli: Cli, stub: StubDaemon) -> None:
    stub.refusal = (404, {"error": {"message": "Engine not found"}})
    for arguments in (("logs", "x"), ("logs", "x", "-f"), ("ps", "--watch")):
        done = cli(*arguments, "--url", stub.url)
        assert (done.code, done.err) == (1, "Error: Engine not found\n")
