"""A key that has used up its quota is told so in each API's own words, with the time to come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kolosal.schema import Usage
from tests.fakes import FakeEngine, app_with, http_client, says

KEY = "a-key-of-the-operator-1"
MESSAGES = [{"role": "user", "content": "Hi"}]


def rpc(method: str, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


CALLS: dict[str, tuple[object, Callable[[Any], str]]] = {
    "/v1/chat/completions": ({"model": "a", "messages": MESSAGES}, lambda body: body["error"]["message"]),
    "/v1/completions": ({"model": "a", "prompt": "Hi"}, lambda body: body["error"]["message"]),
    "/v1/responses": ({"model": "a", "input": "Hi"}, lambda body: body["error"]["message"]),
    "/v1/embeddings": ({"model": "a", "input": "Hi"}, lambda body: body["error"]["message"]),
    "/v1/messages": ({"model": "a", "messages": MESSAGES, "max_tokens": 5}, lambda body: body["error"]["message"]),
    "/api/chat": ({"model": "a", "messages": MESSAGES}, lambda body: body["error"]),
    "/api/embed": ({"model": "a", "input": "Hi"}, lambda body: body["error"]),
    "/tokenize": ({"model": "a", "content": "Hi"}, lambda body: body["error"]["message"]),
    "/rpc": (rpc("create_message", message="Hi"), lambda body: body["error"]["message"]),
    "/stream": ({"message": "Hi"}, str),
    "/chat/blocking": ({"prompt": "Hi", "model": "a"}, str),
}  # fmt: skip


@pytest.mark.parametrize("path", CALLS)
async def test_every_api_says_that_a_quota_is_used_up(path: str) -> None:
    app = app_with(FakeEngine("a", says("x")), api_key=KEY, requests_per_day=1)
    body, message_of = CALLS[path]
    async with http_client(app, {"x-api-key": KEY}) as client:
        await client.post(path, json=body)
        refused = await client.post(path, json=body)
    message: Any = message_of(refused.json())
    assert "has used its 1 requests a day: the next day begins at" in message
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 86_400


async def test_tokens_of_all_kinds_are_counted_and_shown() -> None:
    engine = FakeEngine("a", says("x", "y", usage=Usage(5, 2)))
    app = app_with(engine, api_key=KEY, tokens_per_day=10)
    async with http_client(app, {"x-api-key": KEY}) as client:
        assert (
            await client.post("/v1/chat/completions", json={"model": "a", "messages": MESSAGES})
        ).is_success
        text = (await client.get("/metrics/prometheus")).text
        assert 'kolosal_quota_used{key="auth.api_key",kind="tokens",window="day"} 7.0' in text
        assert 'kolosal_quota_limit{key="auth.api_key",kind="tokens",window="day"} 10.0' in text
        assert (
            await client.post("/v1/chat/completions", json={"model": "a", "messages": MESSAGES})
        ).is_success
        refused = await client.post("/v1/chat/completions", json={"model": "a", "messages": MESSAGES})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")


async def test_without_keys_there_are_no_quotas() -> None:
    app = app_with(FakeEngine("a", says("x")), requests_per_day=1)
    async with http_client(app) as client:
        for _ in range(3):
            answer = await client.post("/v1/chat/completions", json={"model": "a", "messages": MESSAGES})
            assert answer.status_code == 200
