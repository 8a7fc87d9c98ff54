"""Metrics as JSON and as Prometheus text, and the paths they answer on."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from kolosal.engines.ipc.messages import SavedCounts
from kolosal.errors import GenerationFailed
from kolosal.schema import Usage
from tests.fakes import FakeEngine, app_with, http_client, says

CHAT = {"model": "a", "messages": [{"role": "user", "content": "my secret question"}]}


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


async def test_requests_of_all_dialects_are_counted() -> None:
    engine = FakeEngine("a", says("Hel", "lo", usage=Usage(9, 2, 4)))
    broken = FakeEngine("b", lambda _request: [GenerationFailed("no")])
    async with http_client(app_with(engine, broken)) as client:
        await client.post("/v1/chat/completions", json=CHAT)
        await client.post("/v1/completions", json={"model": "a", "prompt": "x"})
        await client.post("/v1/messages", json={**CHAT, "max_tokens": 5})
        await client.post("/v1/completions", json={"model": "b", "prompt": "x"})
        body = (await client.get("/metrics/completion")).json()["completion_metrics"]
    summary, rows = body["summary"], body["per_engine_metrics"]
    assert (summary["total_requests"], summary["completed_requests"], summary["failed_requests"]) == (4, 3, 1)
    assert (summary["total_input_tokens"], summary["total_output_tokens"], summary["total_tokens"]) == (
        27,
        6,
        33,
    )
    assert (summary["total_cached_tokens"], summary["success_rate_percent"]) == (12, 75.0)
    assert [(row["engine_id"], row["model_name"], row["requests"]["total"]) for row in rows] == [
        ("a", "a", 3),
        ("b", "b", 1),
    ]
    assert rows[0]["tokens"]["average_input_per_request"] == 9.0


async def test_the_whole_has_completion_metrics_twice_as_clients_expect() -> None:
    async with http_client(app_with(FakeEngine("a"))) as client:
        body = (await client.get("/metrics")).json()
    assert set(body) == {"system_metrics", "completion_metrics", "timestamp"}
    assert "summary" in body["completion_metrics"]["completion_metrics"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/metrics", "system_metrics"),
        ("/v1/metrics", "system_metrics"),
        ("/metrics/system", "cpu"),
        ("/v1/metrics/system", "cpu"),
        ("/system/metrics", "cpu"),
        ("/metrics/completion", "completion_metrics"),
        ("/v1/metrics/completion", "completion_metrics"),
        ("/completion-metrics", "completion_metrics"),
    ],
)
async def test_every_path_answers(path: str, key: str) -> None:
    async with http_client(app_with(FakeEngine("a"))) as client:
        assert key in (await client.get(path)).json()


@pytest.mark.parametrize(
    ("accept", "is_text"),
    [
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("text/plain", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", True),
    ],
)
async def test_who_asks_for_text_gets_text(accept: str, is_text: bool) -> None:
    async with http_client(app_with(FakeEngine("a"))) as client:
        response = await client.get("/metrics", headers={"accept": accept})
    assert response.headers["content-type"].startswith("application/json") is not is_text
    if is_text:
        assert "llamacpp:requests_processing" in response.text


async def test_prometheus_counts_by_engine_and_outcome() -> None:
    engine = FakeEngine("a", says("Hel", "lo", usage=Usage(9, 2, 4)))
    engine.saved = SavedCounts(host_bytes=7, disk_bytes=9, restores=2, tokens=600, seconds=3.5)
    broken = FakeEngine("b", lambda _request: [GenerationFailed("no")])
    async with http_client(app_with(engine, broken)) as client:
        await client.post("/v1/chat/completions", json=CHAT)
        await client.post("/v1/completions", json={"model": "b", "prompt": "x"})
        response = await client.get("/metrics/prometheus")
    assert response.headers["content-type"].startswith("text/plain")
    found = samples(response.text)
    assert found["llamacpp:prompt_tokens_total", "a"] == 5
    assert found["llamacpp:tokens_predicted_total", "a"] == 2
    assert found["llamacpp:requests_processing", "a"] == 0
    assert found["kolosal_requests_total", "a", "completed"] == 1
    assert found["kolosal_request_errors_total", "generation_failed", "b"] == 1
    assert found["kolosal_time_to_first_token_seconds_count", "a"] == 1
    assert found["kolosal_time_to_first_token_seconds_bucket", "a", "+Inf"] == 1
    assert found["kolosal_engine_state", "a", "ready"] == 1
    assert (found["kolosal_saved_bytes", "a"], found["kolosal_saved_disk_bytes", "a"]) == (7, 9)
    assert (found["kolosal_restores_total", "a"], found["kolosal_restored_tokens_total", "a"]) == (2, 600)
    assert found["kolosal_restores_saved_seconds_total", "a"] == 3.5
    assert found["kolosal_http_requests_total", "200"] == 1
    assert found["kolosal_http_requests_total", "500"] == 1
    assert found["kolosal_memory_total_bytes",] > 0


async def test_openmetrics_is_valid() -> None:
    async with http_client(app_with(FakeEngine("a", says("x")))) as client:
        await client.post("/v1/chat/completions", json=CHAT)
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        response = await client.get("/metrics", headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert len([*parse_openmetrics(response.text)]) > 20  # type: ignore[no-untyped-call]


async def test_no_prompt_no_answer_and_no_path_is_shown() -> None:
    async with http_client(app_with(FakeEngine("a", says("my secret answer")))) as client:
        await client.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer sk-secret"})
        told = [
            (await client.get(path)).text
            for path in ("/metrics", "/metrics/prometheus", "/v1/events?follow=false")
        ]
    assert [word for text in told for word in ("secret", "/models") if word in text] == []
