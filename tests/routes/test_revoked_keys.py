"""A key that is taken back ends what it began, on every path that lasts, in the words of its protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.schema import TokenDelta
from kolosal.security.auth import Authenticator, Keyring, Lockout
from kolosal.security.keys import KeyFile, Scope
from tests.fakes import AsgiRequest, FakeEngine, FakeRegistry
from tests.routes.test_error_shapes import Surface
from tests.routes.test_every_surface import GENERATING, asked
from tests.routes.websocket.client import connected, new_session
from tests.settings import settings_of


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kolosal.http.disconnect.ADMISSION_CHECK_S", 0.01)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def key(file: KeyFile) -> str:
    return file.create("laptop", Scope)[1]


def app_with_file(engine: FakeEngine, file: KeyFile) -> Starlette:
    authenticator = Authenticator(Keyring((), file), Lockout(10, lambda: 0.0))
    return create_app(settings_of(), FakeRegistry(engine), authenticator=authenticator)


def with_key(request: AsgiRequest, key: str) -> AsgiRequest:
    request.scope["headers"] = [(b"x-api-key", key.encode())]
    return request


@pytest.mark.parametrize(("surface", "fields"), GENERATING)
async def test_a_generation_ends(
    surface: Surface, fields: dict[str, object], file: KeyFile, key: str
) -> None:
    engine, request = FakeEngine(), with_key(asked(surface, **fields), key)
    task = request.start(app_with_file(engine, file))
    await engine.submitted.wait()
    engine.streams[0].put(TokenDelta("Hel"))
    streams = bool(fields) or "stream" in surface.path
    if streams:
        await request.until(b"Hel")
    file.revoke("laptop")
    await task
    assert engine.aborted == [0]
    assert request.complete or not streams
    wrong_status, _ = surface.family.wrong_key
    assert request.status == (200 if streams else wrong_status)
    assert b"taken back" in request.content or surface.path.startswith(("/chat/", "/rpc"))


@pytest.mark.parametrize("path", ["/v1/events", "/engines/fake/logs"])
async def test_what_follows_ends(path: str, file: KeyFile, key: str) -> None:
    request = with_key(AsgiRequest(path, method="GET"), key)
    request.scope["query_string"] = b"follow=true"
    task = request.start(app_with_file(FakeEngine(), file))
    await request.arrived.wait()
    file.revoke("laptop")
    await task
    assert request.complete
    assert b"taken back" in request.content


async def test_a_session_ends_also_where_the_client_is_silent(file: KeyFile, key: str) -> None:
    engine = FakeEngine()
    app = app_with_file(engine, file)
    async with connected(app, await new_session(app, key), key=key) as socket:
        await socket.generate(message="Hi")
        await engine.submitted.wait()
        file.revoke("laptop")
        method, params = await socket.notification()
        while method != "error":
            method, params = await socket.notification()
        await socket.ended()
    assert params["error"]["message"] == "Unauthorized"
    assert socket.closed == 1008
    assert engine.aborted == [0]


async def test_a_stream_that_began_without_keys_ends_when_they_are_needed(file: KeyFile) -> None:
    request = AsgiRequest("/v1/events", method="GET")
    task = request.start(app_with_file(FakeEngine(), file))
    await request.arrived.wait()
    file.create("laptop", Scope)
    await task
    assert request.complete
