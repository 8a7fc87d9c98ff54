"""Commands that stay, against a stub daemon that ends."""

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


def test_logs_are_shown(cli: Cli, stub: StubDaemon) -> None:
    stub.log_lines = ["loading", "bad \x1b[2Jtensor"]
    done = cli("logs", "tiny", "-n", "5", "--url", stub.url)
    assert (done.code, done.out.splitlines()[0]) == (0, "loading")
    assert "\x1b" not in done.out
    assert stub.received[-1][1] == "/engines/tiny/logs?tail=5"


def test_logs_are_followed_to_the_end(cli: Cli, stub: StubDaemon) -> None:
    stub.happenings = [
        'event: line\ndata: {"line": "one"}',
        'event: lines.lost\ndata: {"lost": 3}',
        'event: line\ndata: {"line": "two"}',
    ]
    done = cli("logs", "a b", "-f", "--url", stub.url)
    assert (done.code, done.out) == (0, "one\n(3 lines were lost)\ntwo\n")
    assert stub.received[-1][1] == "/engines/a%20b/logs?follow=true&tail=100"


def test_what_the_daemon_refuses_is_told(cli: Cli, stub: StubDaemon) -> None:
    stub.refusal = (404, {"error": {"message": "Engine not found"}})
    for arguments in (("logs", "x"), ("logs", "x", "-f"), ("ps", "--watch")):
        done = cli(*arguments, "--url", stub.url)
        assert (done.code, done.err) == (1, "Error: Engine not found\n")
