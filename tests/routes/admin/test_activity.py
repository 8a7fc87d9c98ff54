"""`/v1/activity`: a row for each request for inference, whatever its dialect and however it ends."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from starlette.applications import Starlette

from kolosal.errors import EngineDied
from kolosal.observe.activity import MAX_BODY_BYTES
from kolosal.schema import TokenDelta, Usage
from tests.fakes import AsgiRequest, FakeEngine, app_with, http_client, says
from tests.routes.admin.test_events import get, parsed

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "a", "messages": MESSAGES}
KEY = "a-key-of-the-operator-1"


async def activity(app: Starlette, query: str = "", key: str | None = None) -> dict[str, Any]:
    async with http_client(app, {} if key is None else {"x-api-key": key}) as client:
        answer = await client.get(f"/v1/activity{query}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.mark.parametrize(
    ("path", "body", "dialect"),
    [
        ("/v1/chat/completions", CHAT, "openai"),
        ("/v1/completions", {"model": "a", "prompt": "Hi"}, "openai"),
        ("/v1/responses", {"model": "a", "input": "Hi"}, "responses"),
        ("/v1/messages", {**CHAT, "max_tokens": 5}, "anthropic"),
        ("/api/chat", CHAT, "ollama"),
        ("/api/generate", {"model": "a", "prompt": "Hi", "stream": False}, "ollama"),
        ("/v1/embeddings", {"model": "a", "input": ["Hi", "ho"]}, "openai"),
        ("/rpc", {"jsonrpc": "2.0", "id": 1, "method": "create_message", "params": {"message": "Hi"}}, "json_rpc"),
        ("/stream", {"message": "Hi"}, "sessions"),
        ("/chat/blocking", {"prompt": "Hi", "model": "a"}, "conversation"),
    ],
)  # fmt: skip
async def test_every_dialect_has_rows(path: str, body: object, dialect: str) -> None:
    app = app_with(FakeEngine("a", says("He", "llo", usage=Usage(5, 2, 4))))
    async with http_client(app) as client:
        answer = await client.post(path, json=body, headers={"x-request-id": "r-1"})
        assert answer.status_code == 200, answer.text
    row = (await activity(app))["requests"][0]
    assert (row["dialect"], row["path"], row["model"], row["request_id"]) == (dialect, path, "a", "r-1")
    assert (row["outcome"], row["status"], row["error"], row["key"]) == ("completed", 200, None, None)
    if path == "/v1/embeddings":
        return
    assert row["prompt_tokens"] >= 5
    assert (row["cached_tokens"] >= 4, row["completion_tokens"] >= 2) == (True, True)
    assert row["ttft_ms"] is not None
    assert row["duration_ms"] >= row["ttft_ms"]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/chat/completions", {**CHAT, "model": "b"}, 404),
        ("/v1/messages", {**CHAT, "model": "b", "max_tokens": 5}, 404),
        ("/api/chat", {**CHAT, "model": "b"}, 404),
        ("/v1/chat/completions", {**CHAT, "temperature": "hot"}, 400),
        ("/rpc", {"jsonrpc": "2.0", "id": 1, "method": "create_message", "params": {"message": "Hi", "model": "b"}}, None),
    ],
)  # fmt: skip
async def test_what_was_refused_says_why(path: str, body: object, code: int | None) -> None:
    app = app_with(FakeEngine("a", says("Hello")))
    async with http_client(app) as client:
        await client.post(path, json=body)
    row = (await activity(app))["requests"][0]
    assert (row["outcome"], row["completion_tokens"]) == ("failed", 0)
    assert row["message"]
    assert code in (None, row["status"])


async def test_a_stream_that_breaks_has_failed() -> None:
    def dies(_request: object) -> list[TokenDelta | EngineDied]:
        return [TokenDelta("He", (1,)), EngineDied("The engine ended")]

    app = app_with(FakeEngine("a", dies))
    async with http_client(app) as client:
        await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    row = (await activity(app))["requests"][0]
    assert (row["status"], row["outcome"], row["error"]) == (200, "failed", "engine_died")
    assert row["message"] == "The engine ended"


async def test_a_request_that_goes_on_is_shown_and_then_one_whose_client_left() -> None:
    engine = FakeEngine("a")
    app = app_with(engine)
    request = AsgiRequest("/v1/chat/completions", {**CHAT, "stream": True})
    answering = request.start(app)
    await engine.submitted.wait()
    engine.streams[0].put(TokenDelta("Hel", (1, 2), usage=Usage(7, 2)))
    await request.until(b"Hel")
    found = await activity(app)
    [running] = found["running"]
    assert (running["id"], running["outcome"], running["completion_tokens"]) == (None, "running", 2)
    assert (running["prompt_tokens"], found["requests"]) == (7, [])
    request.leave()
    await answering
    found = await activity(app)
    assert found["running"] == []
    assert [row["outcome"] for row in found["requests"]] == ["cancelled"]


async def test_rows_are_bounded_filtered_and_paged() -> None:
    app = app_with(FakeEngine("a", says("x")), FakeEngine("b", says("y")), activity_requests=5)
    async with http_client(app) as client:
        for number in range(8):
            body = {**CHAT, "model": "ab"[number % 2]}
            await client.post("/v1/chat/completions", json=body, headers={"x-request-id": f"r-{number}"})
    found = await activity(app)
    assert (found["total"], found["capturing"]) == (8, False)
    ids = [row["request_id"] for row in found["requests"]]
    assert ids == ["r-7", "r-6", "r-5", "r-4", "r-3"]
    older = await activity(app, f"?limit=2&before={found['requests'][1]['id']}")
    assert [row["request_id"] for row in older["requests"]] == ["r-5", "r-4"]
    only_b = await activity(app, "?model=b&outcome=completed&dialect=openai")
    assert [row["request_id"] for row in only_b["requests"]] == ["r-7", "r-5", "r-3"]
    assert (await activity(app, "?key=nobody"))["requests"] == []


async def test_who_follows_gets_what_ends_and_what_was_missed() -> None:
    app = app_with(FakeEngine("a", says("x")))
    start = (await activity(app))["last_id"]
    async with http_client(app) as client:
        await client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "r-1"})
        following = get("/v1/activity", f"follow=true&after={start}")
        reading = following.start(app)
        await following.until(b"r-1")
        await client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "r-2"})
        await following.until(b"r-2")
    following.leave()
    await reading
    kinds = [(kind, data.get("request_id")) for kind, _, data in parsed(following.content)]
    assert kinds == [("hello", None), ("request", "r-1"), ("request", "r-2")]


async def test_it_is_for_operators_and_names_keys() -> None:
    app = app_with(FakeEngine("a", says("x")), api_key=KEY)
    async with http_client(app) as client:
        assert (await client.get("/v1/activity")).status_code == 401
        await client.post("/v1/chat/completions", json=CHAT, headers={"x-api-key": KEY})
        await client.post("/v1/chat/completions", json=CHAT, headers={"x-api-key": "wrong"})
    found = await activity(app, key=KEY)
    assert [row["key"] for row in found["requests"]] == ["auth.api_key"]  # who guesses makes no rows


async def test_bodies_are_kept_only_where_that_is_set_and_within_its_bytes() -> None:
    app = app_with(FakeEngine("a", says("Hello")))
    async with http_client(app) as client:
        await client.post("/v1/chat/completions", json=CHAT)
        [row] = (await activity(app))["requests"]
        shown = (await client.get(f"/v1/activity/{row['id']}")).json()
        assert (row["captured"], shown["request_body"], shown["response_body"]) == (False, None, None)
    app = app_with(FakeEngine("a", says("Hello")), activity_capture_bytes=MAX_BODY_BYTES)
    async with http_client(app) as client:
        await client.post("/v1/chat/completions", json=CHAT)
        [row] = (await activity(app))["requests"]
        shown = (await client.get(f"/v1/activity/{row['id']}")).json()
        assert orjson.loads(shown["request_body"]) == CHAT
        assert "Hello" in shown["response_body"]
        assert (await activity(app))["capturing"] is True
        long = {**CHAT, "messages": [{"role": "user", "content": "x" * MAX_BODY_BYTES}]}
        await client.post("/v1/chat/completions", json=long)
        newest = (await activity(app))["requests"][0]
        assert (await client.get(f"/v1/activity/{newest['id']}")).json()[
            "request_body"
        ] is None  # too large for all
        older = (await client.get(f"/v1/activity/{row['id']}")).json()
        assert older["request_body"] is None
        for unknown in ("x", f"{row['id']}9", "0000-1"):
            assert (await client.get(f"/v1/activity/{unknown}")).status_code == 404


async def test_how_fast_generations_were_is_a_histogram() -> None:
    app = app_with(FakeEngine("a", says("x", "y", usage=Usage(1, 2))))
    async with http_client(app) as client:
        await client.post("/v1/chat/completions", json=CHAT)
        text = (await client.get("/metrics/prometheus")).text
    assert 'kolosal_output_tokens_per_second_count{engine="a"} 1.0' in text
    assert 'kolosal_time_to_first_token_seconds_count{engine="a"} 1.0' in text
