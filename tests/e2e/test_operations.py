"""What a running daemon with a real model tells of itself."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from tests.e2e.conftest import Cli
from tests.e2e.helpers import chat

pytestmark = pytest.mark.model

SECRET = "xylophonist"  # a word that no model says by itself


def metrics_of(http: httpx.Client, engine_id: str) -> dict[str, Any]:
    rows = http.get("/metrics/completion").json()["completion_metrics"]["per_engine_metrics"]
    return next(row for row in rows if row["engine_id"] == engine_id)


def test_tokens_are_counted_as_the_client_is_told(http: httpx.Client, tiny: str) -> None:
    usage = http.post("/v1/chat/completions", json=chat("Hello", tiny, max_tokens=12)).json()["usage"]
    row = metrics_of(http, tiny)
    assert row["tokens"]["input_total"] == usage["prompt_tokens"]
    assert row["tokens"]["output_total"] == usage["completion_tokens"]
    assert (row["requests"]["completed"], row["requests"]["running"]) == (1, 0)
    assert row["performance"]["average_ttft_ms"] > 0
    memory = {each["engine_id"]: each for each in http.get("/metrics/system").json()["processes"]["engines"]}
    assert memory[tiny]["memory_bytes"] > 10**6
    assert f'llamacpp:kv_cache_tokens{{engine="{tiny}"}}' in http.get("/metrics/prometheus").text


def test_a_request_is_found_in_the_events_and_its_text_nowhere(http: httpx.Client, tiny: str) -> None:
    answer = http.post(
        "/v1/chat/completions", json=chat(SECRET, tiny, max_tokens=3), headers={"x-request-id": "find-me"}
    )
    assert answer.headers["x-request-id"] == "find-me"
    kept = http.get("/v1/events", params={"follow": "false"}).text
    data = [orjson.loads(line[6:]) for line in kept.splitlines() if line.startswith("data: ")]
    mine = [event for event in data if event.get("request_id") == "find-me"]
    assert [event.get("outcome") for event in mine] == [None, "completed"]
    assert mine[1]["completion_tokens"] == 3
    told = (
        kept
        + http.get("/metrics/prometheus").text
        + "".join(http.get(f"/engines/{tiny}/logs").json()["lines"])
    )
    assert SECRET not in told


def test_loading_is_told_and_what_llama_cpp_says_is_kept(http: httpx.Client, tiny: str, cli: Cli) -> None:
    kept = http.get("/v1/events", params={"follow": "false"}).text
    data = [orjson.loads(line[6:]) for line in kept.splitlines() if line.startswith("data: ")]
    states = [event["state"] for event in data if event.get("engine_id") == tiny and "state" in event]
    assert states[-3:] == ["unloaded", "loading", "ready"]
    shown = cli("logs", tiny, "--tail", "2000")
    assert (shown.returncode, shown.stdout) == (
        0,
        "".join(f"{line}\n" for line in http.get(f"/engines/{tiny}/logs?tail=2000").json()["lines"]),
    )
