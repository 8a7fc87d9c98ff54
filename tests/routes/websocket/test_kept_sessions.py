"""`sessions.keep_history`: a session and what was said in it outlive the daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from kolosal.errors import ContextLengthExceeded, EngineDied, KolosalError
from kolosal.routes.websocket import kept_sessions
from kolosal.schema import FinishReason, GenerateRequest, TokenDelta, Usage
from kolosal.store.collections import SESSIONS
from kolosal.store.expiry import drop_everyones
from tests.fakes import FakeEngine, app_with, http_client, says
from tests.routes.jsonrpc.calling import CALL, WEATHER, prompt_of, turns_of
from tests.routes.websocket.client import connected, new_session


def numbered(request: GenerateRequest) -> Iterable[TokenDelta]:
    """A model that counts the messages it is shown."""
    yield TokenDelta(f"#{len(prompt_of(request).messages)}")
    yield TokenDelta("", (), FinishReason.STOP, Usage(1, 1))


@asynccontextmanager
async def daemon(folder: Path, engine: FakeEngine, **settings: Any) -> AsyncIterator[Starlette]:
    """A daemon over the store in a folder."""
    url = f"sqlite:///{folder / 'kolosal.db'}"
    app = app_with(engine, **{"store_url": url, "sessions_keep_history": True, **settings})
    yield app
    await app.state.services.store.close()


async def said(app: Starlette, session_id: str, **params: Any) -> str:
    """The final text of a `generate` over a connection of its own."""
    async with connected(app, session_id) as socket:
        await socket.generate(**params)
        method, told = (await socket.until_end())[-1]
        assert method == "final_text", told
        return str(told["final_text"])


async def test_a_session_goes_on_after_a_restart(tmp_path: Path) -> None:
    engine = FakeEngine(script=numbered)
    async with daemon(tmp_path, engine) as app:
        session_id = await new_session(app, tools=[WEATHER])
        await said(app, session_id, message="yes")
    async with daemon(tmp_path, engine) as app:
        assert await said(app, session_id, message="yes") == "#3"
        assert prompt_of(engine.requests[-1]).tool_use.tools[0].name == "weather"
        assert turns_of(engine.requests[-1]) == [("user", "yes"), ("assistant", "#1"), ("user", "yes")]
        assert await said(app, session_id, history=[], message="new") == "#1"
        assert await said(app, session_id, message="and?") == "#3"
        assert turns_of(engine.requests[-1])[0] == ("user", "new")


async def test_sessions_are_not_kept_unless_a_setting_asks(tmp_path: Path) -> None:
    engine = FakeEngine(script=numbered)
    for _ in range(2):
        async with daemon(tmp_path, engine, sessions_keep_history=False) as app:
            session_id = await new_session(app)
            assert [await said(app, session_id, message="Hi") for _ in range(2)] == ["#1", "#1"]
    assert [*tmp_path.iterdir()] == []  # noqa: ASYNC240


async def test_calls_and_their_results_are_remembered(tmp_path: Path) -> None:
    def script(request: GenerateRequest) -> Iterable[TokenDelta | KolosalError]:
        asked = prompt_of(request).messages[-1].role == "user" and len(prompt_of(request).messages) == 1
        return says(CALL if asked else "Rain.")(request)

    engine = FakeEngine(script=script)
    async with daemon(tmp_path, engine) as app:
        session_id = await new_session(app, tools=[WEATHER])
        async with connected(app, session_id) as socket:
            await socket.generate(message="Oslo?")
            while (await socket.notification())[0] != "function_call_request":
                pass
            results = [{"tool_name": "weather", "result": {"sky": None}}]
            await socket.ask("tool_result", task_id=socket.task_id, results=results)
            await socket.until_end()
    async with daemon(tmp_path, engine) as app:
        await said(app, session_id, message="Sure?")
    assert [role for role, _ in turns_of(engine.requests[-1])] == [
        "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    assert turns_of(engine.requests[-1])[2:4] == [("tool", '{"sky":null}'), ("assistant", "Rain.")]


async def test_what_failed_is_not_remembered(tmp_path: Path) -> None:
    engine = FakeEngine(script=lambda _: [EngineDied("no such luck")])
    async with daemon(tmp_path, engine) as app:
        session_id = await new_session(app)
        async with connected(app, session_id) as socket:
            await socket.generate(message="one")
            assert [method for method, _ in await socket.until_end()] == ["error"]
        engine.script = numbered
        assert await said(app, session_id, message="two") == "#1"


async def test_the_oldest_is_forgotten_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(request: GenerateRequest) -> Iterable[TokenDelta | KolosalError]:
        if len(prompt_of(request).messages) > 5:
            return [ContextLengthExceeded.of(10, 5)]
        return numbered(request)

    async with daemon(tmp_path, FakeEngine(script=short)) as app:
        session_id = await new_session(app)
        texts = [await said(app, session_id, message=str(n)) for n in range(6)]
        assert texts == ["#1", "#3", "#5", "#3", "#5", "#3"]
        monkeypatch.setattr(kept_sessions, "MAX_EXCHANGES", 1)
        assert [await said(app, session_id, message="x") for _ in range(3)] == ["#3"] * 3


async def test_a_session_is_forgotten_in_its_time_and_is_its_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(script=numbered)
    async with daemon(tmp_path, engine) as app:
        session_id = await new_session(app)
        await said(app, session_id, message="Hi")
        store = app.state.services.store
        async with store.reading(None) as session:
            expires_at = (await session.newest(SESSIONS, 1))[0].data["expires_at"]
        assert await app.state.services.kept_sessions.find(session_id, "key_2") is None
    async with daemon(tmp_path, engine) as app:
        kept = app.state.services.kept_sessions
        assert (await kept.find(session_id, None)).id == session_id
        await drop_everyones(app.state.services.store, expires_at)
        async with connected(app, session_id) as socket:
            assert (await socket.notification())[1]["error"]["message"] == "Invalid session ID"
        async with app.state.services.store.reading(None) as session:
            assert await session.used_bytes() == 0


async def test_a_store_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "kolosal.db").write_bytes(b"this is no database" * 100)
    async with daemon(tmp_path, FakeEngine(script=numbered)) as app:
        async with http_client(app) as client:
            assert (await client.post("/create_session")).status_code == 503
        async with connected(app, "00000000-0000-4000-8000-000000000000") as socket:
            assert "its database is damaged" in (await socket.notification())[1]["error"]["message"]
            await socket.ended()
            assert socket.closed == 1013
        session = app.state.services.sessions.create((), None, 1)
        async with connected(app, session.id) as socket:
            await socket.generate(message="Hi")
            [(method, told)] = await socket.until_end()
            assert (method, told["error"]["data"]["code"]) == ("error", "store_unavailable")
            await socket.generate(history=[{"role": "user", "content": "Hi"}])
            assert [method for method, _ in await socket.until_end()] == [
                "text_chunk", "final_text", "error",
            ]  # fmt: skip
