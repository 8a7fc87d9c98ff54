"""Sessions and their connections: who may come, how long, and how much."""

from __future__ import annotations

from uuid import UUID

import pytest

from kolosal.config.sessions import SessionSettings
from kolosal.errors import QueueFull
from kolosal.routes.websocket.connection import RateLimiter
from kolosal.routes.websocket.sessions import MAX_TOTAL_BYTES, SessionStore
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.jsonrpc.calling import WEATHER, prompt_of
from tests.routes.websocket.client import Socket, connected, new_session, session


@pytest.mark.parametrize("content", [b"", b" ", b"{}", b"null", b'{"tools": []}', b'{"tools": null, "x": 1}'])
async def test_W01_a_session_is_made_with_or_without_a_body(content: bytes) -> None:
    async with http_client(app_with()) as client:
        response = await client.post("/create_session", content=content)
    assert response.status_code == 200
    assert response.json().keys() == {"session_id"}
    assert UUID(response.json()["session_id"]).version == 4


@pytest.mark.parametrize(("content", "reason"), [
    (b"{", "Invalid JSON"), (b"[]", "object"), (b'{"tools": [{}]}', "tools.0.name"),
])  # fmt: skip
async def test_W01_a_bad_body_is_refused(content: bytes, reason: str) -> None:
    async with http_client(app_with()) as client:
        response = await client.post("/create_session", content=content)
    assert response.status_code == 400
    assert response.json()["detail"] == "Invalid request body or internal error."
    assert reason in response.json()["reason"]


async def test_W01_a_body_that_is_too_long_is_refused() -> None:
    async with http_client(app_with()) as client:
        response = await client.post("/create_session", content=b" " * (1024 * 1024 + 1))
        assert (response.status_code, response.json().keys()) == (413, {"detail"})
        assert (await client.get("/create_session")).json().keys() == {"detail"}


async def test_a_session_has_tools_and_a_model() -> None:
    engines = FakeEngine("a", says("x")), FakeEngine("b", says("x"))
    app = app_with(*engines)
    async with connected(app, await new_session(app, tools=[WEATHER], model="b")) as socket:
        await socket.generate(message="Hi")
        await socket.until_end()
        await socket.generate(message="Hi", model="a")
        await socket.until_end()
    assert [len(engine.requests) for engine in engines] == [1, 1]
    assert prompt_of(engines[1].requests[0]).tool_use.tools[0].name == "weather"


async def test_W07_an_unknown_session_is_told_so_and_closed() -> None:
    async with connected(app_with(), "nope") as socket:
        method, params = await socket.notification()
        assert method == "error"
        assert params == {"error": {"code": -32000, "message": "Invalid session ID"}}
        await socket.ended()
        assert socket.closed == 1008


async def test_a_session_survives_its_connections() -> None:
    app = app_with(FakeEngine(script=says("a")))
    session_id = await new_session(app)
    for _ in range(2):
        async with connected(app, session_id) as socket:
            await socket.generate(message="Hi")
            assert len(await socket.until_end()) == 2


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_W07_an_idle_session_expires_and_a_connected_one_does_not() -> None:
    clock = Clock()
    store = SessionStore(SessionSettings(ttl_s=10), clock)
    idle, used = (store.create((), None, 1) for _ in range(2))
    store.connect(used.id)
    clock.now += 10.1
    assert store.connect(idle.id) is None
    assert store.connect(used.id) is used
    store.disconnect(used)
    clock.now += 100
    store.disconnect(used)
    clock.now += 9.9
    assert store.connect(used.id) is used
    store.disconnect(used)
    clock.now += 10.1
    assert store.connect(used.id) is None


def test_the_least_recently_used_idle_session_makes_room() -> None:
    store = SessionStore(SessionSettings(max_count=2), Clock())
    first, second = (store.create((), None, 1) for _ in range(2))
    store.connect(first.id)
    store.disconnect(first)
    third = store.create((), None, 1)
    assert store.connect(second.id) is None
    assert store.connect(first.id) is first
    assert store.connect(third.id) is third
    with pytest.raises(QueueFull):
        store.create((), None, 1)


def test_sessions_have_so_much_memory_together() -> None:
    store = SessionStore(SessionSettings(), Clock())
    first = store.create((), None, MAX_TOTAL_BYTES // 2)
    store.create((), None, MAX_TOTAL_BYTES // 2)
    assert store.connect(first.id) is first
    third = store.create((), None, 1)
    assert store.connect(third.id) is third
    with pytest.raises(QueueFull):
        store.create((), None, MAX_TOTAL_BYTES // 2 + 1)


def test_a_session_is_its_owners_and_makes_room_for_its_own_first() -> None:
    store = SessionStore(SessionSettings(max_count=2), lambda: 0.0)
    others = store.create((), None, 0, "key_2")
    own = store.create((), None, 0, "key_1")
    assert store.connect(own.id, "key_2") is store.connect(own.id) is None
    third = store.create((), None, 0, "key_1")
    assert store.connect(own.id, "key_1") is None
    assert store.connect(third.id, "key_1") is third
    assert store.connect(others.id, "key_2") is others


async def test_more_connections_than_there_may_be_are_sent_away() -> None:
    app = app_with(sessions_max_connections=1)
    session_id = await new_session(app)
    async with connected(app, session_id), connected(app, session_id) as second:
        assert (await second.notification())[0] == "error"
        await second.ended()
        assert second.closed == 1013
    async with connected(app, session_id) as third:
        assert (await third.ask("cancel"))["error"]["code"] == -32003


def test_a_connection_may_speak_in_bursts_but_not_for_long() -> None:
    rate = RateLimiter(2, 0.0)
    assert [rate.allows(0.0) for _ in range(9)] == [True] * 8 + [False]
    assert [rate.allows(1.0) for _ in range(3)] == [True, True, False]
    assert [rate.allows(1000.0) for _ in range(9)] == [True] * 8 + [False]
    assert RateLimiter(0.1, 0.0).allows(0.0)


async def test_who_sends_too_many_messages_is_closed() -> None:
    async with session(FakeEngine(), {"sessions_messages_per_s": 0.1}) as socket:
        assert "error" in await socket.ask("cancel")
        socket.call("cancel")
        assert "Too many messages" in (await socket.notification())[1]["error"]["message"]
        await socket.ended()
        assert socket.closed == 1008


async def test_what_is_no_text_closes_the_connection_and_what_runs() -> None:
    engine = FakeEngine()
    async with session(engine) as socket:
        await socket.generate(message="Hi")
        await engine.submitted.wait()
        socket.say_bytes(b"{}")
        assert (await socket.notification())[0] == "error"
        await socket.ended()
        assert socket.closed == 1003
    assert engine.aborted == [0]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("{", -32700, "Parse error"), ("", -32700, "Parse error"), ("[]", -32600, "must be an object, not an array"),
        ('{"method": "cancel", "id": 1}', -32600, "version"), ('{"jsonrpc": "2.0", "id": 1}', -32600, "method"),
        ('{"jsonrpc": "2.0", "method": "nope", "id": 1}', -32601, "Method not found"),
        ('{"jsonrpc": "2.0", "method": "generate", "id": 1}', -32602, "Cannot generate without history or message"),
        ('{"jsonrpc": "2.0", "method": "generate", "params": 5, "id": 1}', -32602, "params must be an object"),
        ('{"jsonrpc": "2.0", "method": "generate", "params": {"message": 5}, "id": 1}', -32602, "message must be a string"),
        ('{"jsonrpc": "2.0", "method": "generate", "params": {"message": "a", "tools": [{}]}, "id": 1}', -32602, "tools.0.name"),
        ('{"jsonrpc": "2.0", "method": "tool_result", "params": {"results": [{}]}, "id": 1}', -32602, "task_id"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_refused_with_its_code(text: str, code: int, words: str) -> None:
    async with session(FakeEngine(script=says("a"))) as socket:
        socket.say(text)
        answer = await socket.next()
        assert answer["error"]["code"] == code
        assert words in answer["error"]["message"]
        assert answer["id"] == (1 if '"id": 1' in text else None)
        await socket.generate(message="Hi")
        assert len(await socket.until_end()) == 2


async def test_a_request_without_an_id_gets_no_answer_but_its_fault_is_told() -> None:
    async with session(FakeEngine(script=says("a"))) as socket:
        socket.say('{"jsonrpc": "2.0", "method": "generate", "params": {"message": "Hi"}}')
        assert [method for method, _ in await socket.until_end()] == ["text_chunk", "final_text"]
        socket.say('{"jsonrpc": "2.0", "method": "cancel"}')
        method, params = await socket.notification()
        assert (method, params["error"]["code"]) == ("error", -32003)


async def test_a_long_message_is_read_like_a_short_one() -> None:
    engine = FakeEngine(script=says("a"))
    async with session(engine) as socket:
        await socket.generate(message="x" * 400_000)
        await socket.until_end()
    assert len(prompt_of(engine.requests[0]).messages[0].content) == 400_000


async def test_an_unknown_path_is_refused_before_the_upgrade() -> None:
    socket = Socket(app_with(), "a/b")
    await socket.run()
    assert socket.closed == 1000  # before it was accepted: the server answers 403
