"""`activity` against a stub daemon."""

from __future__ import annotations

import json

from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon

ROW = {
    "time": 1_700_000_000_000, "request_id": "req_1", "dialect": "openai", "model": "ti\x1b[2Jny", "key": None,
    "outcome": "failed", "error": "queue_full", "prompt_tokens": 5, "cached_tokens": 0, "completion_tokens": 7,
    "ttft_ms": 120.0, "tokens_per_s": 33.333,
}  # fmt: skip


def test_the_last_requests_are_a_table(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/v1/activity"] = {"requests": [ROW, {**ROW, "request_id": "req_0"}], "last_id": "x-2"}
    done = cli("activity", "--url", stub.url, "-n", "5", "--model", "a b", "--outcome", "failed")
    header, *rows = done.out.splitlines()
    assert (done.code, header.split()[0], [row.split()[-1] for row in rows]) == (
        0,
        "TIME",
        ["req_0", "req_1"],
    )
    assert "0.12 s" in done.out
    assert "33.3" in done.out
    assert "failed queue_full" in done.out
    assert "\x1b" not in done.out
    assert stub.received[-1][1] == "/v1/activity?limit=5&model=a+b&outcome=failed"


def test_followed_requests_come_after_the_last_ones(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/v1/activity"] = {"requests": [ROW], "last_id": "x-1"}
    stub.happenings = [
        "event: hello\ndata: {}",
        f"event: request\ndata: {json.dumps({**ROW, 'request_id': 'req_2'})}",
        'event: requests.lost\ndata: {"lost": 3}',
    ]
    done = cli("activity", "-f", "--json", "--url", stub.url)
    assert [json.loads(line)["request_id"] for line in done.out.splitlines()] == ["req_1", "req_2"]
    assert "(3 requests were lost)" in done.err
    assert stub.received[-1][1] == "/v1/activity?follow=true&after=x-1"
