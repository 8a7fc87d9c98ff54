"""`logs` against a stub daemon."""

from __future__ import annotations

from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon


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
