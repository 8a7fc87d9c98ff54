"""How many requests may be in the daemon, and what those get that may not."""

from __future__ import annotations

import asyncio

import pytest

from kolosal.admission import Admission
from kolosal.config.server import ServerSettings
from kolosal.errors import QueueFull, ServerBusy
from kolosal.security.keys import ApiKey
from tests.fakes import AsgiRequest, FakeEngine, app_with, eventually, http_client, says

CHAT = {"model": "a", "messages": [{"role": "user", "content": "Hi"}]}


def test_places_are_bounded_and_come_back() -> None:
    admission = Admission(ServerSettings(max_requests=2))
    first, _ = admission.enter(None), admission.enter(None)
    with pytest.raises(ServerBusy, match="2 requests"):
        admission.enter(None)
    first.leave()
    first.leave()
    assert admission.total == 1
    admission.enter(None)


def test_a_key_has_a_bound_of_its_own_and_no_key_has_none() -> None:
    admission = Admission(ServerSettings(max_requests=10, max_requests_per_key=1))
    place = admission.enter("k1")
    with pytest.raises(QueueFull, match="API key"):
        admission.enter("k1")
    admission.enter("k2")
    for _ in range(3):
        admission.enter(None)
    place.leave()
    admission.enter("k1")


async def test_beyond_the_bound_is_503_with_retry_after_and_a_place_is_free_after_the_end() -> None:
    engine = FakeEngine("a", says("Hi"))
    engine.loading = asyncio.Event()
    app = app_with(engine, max_requests=1)
    running = AsgiRequest("/v1/chat/completions", CHAT)
    task = running.start(app)
    await eventually(lambda: app.state.services.admission.total)
    async with http_client(app) as client:
        refused = await client.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.post("/tokenize", json={"content": "x"})).status_code == 503
        assert (await client.get("/health")).status_code == 200
        engine.loading.set()
        await task
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        assert (await client.post("/tokenize", json={"content": "x"})).status_code == 200
    assert app.state.services.admission.total == 0


async def test_places_are_free_after_every_kind_of_end() -> None:
    engine = FakeEngine("a")
    app = app_with(engine)
    admission = app.state.services.admission
    left = AsgiRequest("/v1/chat/completions", CHAT | {"stream": True})
    task = left.start(app)
    await engine.submitted.wait()
    assert admission.total == 1
    left.leave()
    await task
    assert admission.total == 0
    async with http_client(app) as client:
        await client.post("/v1/chat/completions", json=CHAT | {"model": "nope"})
        await client.post("/v1/embeddings", json={"model": "nope", "input": "x"})
    assert admission.total == 0


async def test_who_waits_too_long_for_a_first_token_is_told_so() -> None:
    engine = FakeEngine("a")
    app = app_with(engine, queue_timeout_s=0.1)
    async with http_client(app) as client:
        response = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "queue_timeout")
    assert "0.1 seconds" in response.json()["error"]["message"]
    assert engine.aborted == [0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "x"}),
        ("/tokenize", {"content": "x"}),
        ("/v1/messages/count_tokens", CHAT),
        ("/v1/responses/input_tokens", {"input": "x"}),
        ("/v1/completions", {"prompt": [1], "echo": True}),
        ("/api/chat", CHAT),
    ],
)
async def test_who_waits_too_long_for_a_load_is_told_so(path: str, body: dict[str, object]) -> None:
    engine = FakeEngine("a", says("Hi"))
    engine.loading = asyncio.Event()
    app = app_with(engine, queue_timeout_s=0.1)
    async with http_client(app) as client:
        response = await client.post(path, json={"model": "a"} | body)
    assert response.status_code in (503, 529)  # the second is the Messages API's
    assert "waited 0.1 seconds" in response.text
    assert app.state.services.admission.total == 0


async def test_who_asks_is_said_where_keys_are_used() -> None:
    engine = FakeEngine("a", says("Hi"))
    app = app_with(engine, max_requests_per_key=1)
    for key in (ApiKey(id="key-1", name="a", scopes=frozenset(), sha256="", created=None), None):
        request = AsgiRequest("/v1/chat/completions", CHAT)
        request.scope["state"] = {"api_key": key}
        await request.start(app)
        assert request.status == 200
    assert [request.client for request in engine.requests] == ["key-1", ""]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/stream", {"message": "Hi"}),
        ("/rpc", {"jsonrpc": "2.0", "id": 1, "method": "create_message", "params": {"message": "Hi"}}),
        ("/chat/blocking", {"prompt": "Hi"}),
        ("/chat/blocking", {"prompt": "Hi", "improvement": True}),
        ("/chat/stream", {"prompt": "Hi", "improvement": True}),
        ("/api/chat", {"model": "a", "messages": [{"role": "user", "content": "Hi"}], "stream": False}),
        ("/api/generate", {"model": "a", "prompt": "Hi"}),
    ],
)
async def test_a_request_of_each_dialect_has_one_place_and_leaves_it(
    path: str, body: dict[str, object]
) -> None:
    engine = FakeEngine("a", says("Hi"))
    app = app_with(engine, max_requests=1)
    admission = app.state.services.admission
    async with http_client(app) as client:
        first = await client.post(path, json=body)
        assert (first.status_code, "busy" in first.text) == (200, False)
        assert admission.total == 0
        place = admission.enter(None)
        assert "1 requests running and waiting" in (await client.post(path, json=body)).text
        place.leave()
    nothing = app_with()
    async with http_client(nothing) as client:
        await client.post(path, json=body)
    assert nothing.state.services.admission.total == 0
