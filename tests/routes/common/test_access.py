"""Every route without a key, with a wrong one, and with too little of one; carriers; what keys keep apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket

from kolosal.app import create_app
from kolosal.config.models import ModelEntry
from kolosal.config.settings import Settings
from kolosal.observe.activity import ActivityLog
from kolosal.routes import all_routes
from kolosal.routes.common.access import guarded, presented_keys
from kolosal.routes.common.operation import Access, Group, Operation, operation_of
from kolosal.security.auth import Authenticator, Keyring, Lockout
from kolosal.security.keys import ApiKey, KeyFile, Scope, plain_key
from tests.fakes import FakeEngine, FakeRegistry, app_with, http_client, says
from tests.routes.chats import HELLO
from tests.routes.websocket.client import connected, new_session
from tests.settings import settings_of
from tests.tiny_gguf import write_tiny_gguf

ADMIN, USER, BOTH = "an-admin-key-12345678", "an-inference-key-1234", "a-key-for-both-123456"
KEYS = (
    plain_key(ADMIN, "admin", frozenset({Scope.ADMIN})),
    plain_key(USER, "user", frozenset({Scope.INFERENCE})),
    plain_key(BOTH, "both"),
)
ROUTES = [route for route in all_routes() if isinstance(route, Route)]
OPEN = {"/", "/health", "/v1/health", "/status", "/docs", "/docs/{file}", "/ui", "/ui/{file}"}

CALLS = [
    (re.sub(r"\{\w+(:\w+)?\}", "fake", route.path), verb, operation.scope)
    for route in ROUTES
    for verb in sorted(route.methods or ())
    if (operation := operation_of(route.endpoint)) is not None
]


def authenticator_of_keys(keys: tuple[ApiKey, ...] = KEYS) -> Authenticator:
    return Authenticator(Keyring(keys), Lockout(10, lambda: 0.0))


def app_with_keys(*engines: FakeEngine, keys: tuple[ApiKey, ...] = KEYS, **settings: Any) -> Starlette:
    return create_app(
        settings_of(**settings), FakeRegistry(*engines), authenticator=authenticator_of_keys(keys)
    )


async def call(path: str, verb: str, key: str | None = None, **headers: str) -> httpx.Response:
    return await called(app_with_keys(), path, verb, key, **headers)


async def called(app: Starlette, path: str, verb: str, key: str | None, **headers: str) -> httpx.Response:
    given = headers if key is None else {"authorization": f"Bearer {key}", **headers}
    follow = {"follow": "false"} if path.endswith(("/events", "/sse")) else None  # these would never end
    async with http_client(app) as client:
        return await client.request(verb, path, headers=given, params=follow)


@pytest.mark.fault("A5")
def test_every_route_says_whom_it_answers() -> None:
    scopes = {
        route.path: operation and operation.scope
        for route in ROUTES
        for operation in [operation_of(route.endpoint)]
    }
    assert [path for path, scope in scopes.items() if scope is None] == []  # see kolosal/routes/operation.py
    assert {path for path, scope in scopes.items() if scope is Access.OPEN} == OPEN


@pytest.mark.fault("A5")
def test_what_changes_engines_is_for_admins() -> None:
    changing = [access for path, verb, access in CALLS if "/engines" in path and verb not in ("GET", "HEAD")]
    assert changing
    assert set(changing) == {Access.ADMIN}


@pytest.mark.fault("A5")
@pytest.mark.parametrize("key", [None, "wrong", USER, ADMIN, BOTH])
async def test_every_route_answers_whom_it_says(key: str | None) -> None:
    """Nothing but what is open answers without a key, and a key does what its scope says."""
    patient = Authenticator(Keyring(KEYS), Lockout(len(CALLS) + 1, lambda: 0.0))
    app = create_app(settings_of(), FakeRegistry(), authenticator=patient)
    found = [
        (verb, path, (await called(app, path, verb, key)).status_code, access) for path, verb, access in CALLS
    ]
    assert [each for each in found if not is_right(*each[1:], key)] == []


def is_right(path: str, status: int, access: Access | None, key: str | None) -> bool:
    if access is Access.OPEN:
        return status == (404 if path.endswith("/fake") else 200)
    of_conversation = path in (
        "/chat/blocking",
        "/chat/stream",
        "/ping",
    )  # their contract has words of its own
    if key is None:
        return status == (422 if of_conversation else 401)
    if key == "wrong":
        return status == (403 if of_conversation else 401)
    refused = {USER: Access.ADMIN, ADMIN: Access.INFERENCE}.get(key)
    return status != 401 and (status == 403) == (access is refused)


@pytest.mark.fault("A5")
async def test_a_route_that_forgot_its_scope_is_for_admins() -> None:
    async def forgetful(_request: object) -> None:
        raise AssertionError("reached")

    @Operation(group=Group.DAEMON, answer="Nothing.")
    async def half_forgetful(_request: object) -> None:
        raise AssertionError("reached")

    routes = guarded(
        [Route("/a", forgetful), Route("/b", half_forgetful)], authenticator_of_keys(), ActivityLog()
    )
    app = app_with_keys()
    app.router.routes[:] = routes
    async with http_client(app) as client:
        for path in ("/a", "/b"):
            assert (await client.get(path, headers={"x-api-key": USER})).status_code == 403


@pytest.mark.fault("A5")
def test_what_cannot_be_checked_is_not_served() -> None:
    with pytest.raises(TypeError, match="no check"):
        guarded([Mount("/files", routes=[])], authenticator_of_keys(), ActivityLog())


class TestShapes:
    async def test_openai(self) -> None:
        missing, wrong, scope = [
            await call("/v1/chat/completions", "POST", key) for key in (None, "wrong", ADMIN)
        ]
        for response in (missing, wrong):
            error = response.json()["error"]
            assert (response.status_code, error["type"], error["code"], error["param"]) == (
                401, "invalid_request_error", "invalid_api_key", None,
            )  # fmt: skip
        assert missing.headers["www-authenticate"] == wrong.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in missing.json()["error"]["message"]
        assert (scope.status_code, scope.json()["error"]["code"]) == (403, "missing_scope")
        assert "'inference'" in scope.json()["error"]["message"]

    async def test_anthropic(self) -> None:
        for key, status, kind in ((None, 401, "authentication_error"), (ADMIN, 403, "permission_error")):
            response = await call("/v1/messages", "POST", key)
            body = response.json()
            assert (response.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
            assert body["request_id"] == response.headers["request-id"]

    async def test_nothing_repeats_the_key(self) -> None:
        for key in ("wrong-secret-of-mine", ADMIN):
            response = await call("/v1/chat/completions", "POST", key)
            assert key not in response.text + str(response.headers)

    @pytest.mark.fault("A3")
    async def test_ten_wrong_keys_are_429_with_a_time(self) -> None:
        app = app_with_keys()
        async with http_client(app) as client:
            for number in range(10):
                response = await client.get("/v1/models", headers={"x-api-key": f"guess-{number}"})
                assert response.status_code == 401
            for path, kind in (
                ("/v1/models", "rate_limit_error"),
                ("/v1/messages/count_tokens", "rate_limit_error"),
            ):
                verb = "GET" if path == "/v1/models" else "POST"
                refused = await client.request(verb, path, headers={"x-api-key": USER})
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
                assert refused.json()["error"]["type"] == kind
            assert (await client.get("/health")).status_code == 200


class TestCarriers:
    @pytest.mark.parametrize("headers", [
        {"authorization": f"Bearer {USER}"}, {"authorization": f"bearer   {USER} "}, {"x-api-key": USER},
        {"X-API-KEY": USER, "authorization": "Bearer stale"}, {"x-api-key": "stale", "authorization": f"Bearer {USER}"},
    ])  # fmt: skip
    async def test_a_key_comes_in_a_header(self, headers: dict[str, str]) -> None:
        assert (await call("/v1/models", "GET", None, **headers)).status_code == 200

    @pytest.mark.parametrize("headers", [
        {"authorization": USER}, {"authorization": f"Basic {USER}"}, {"authorization": "Bearer"}, {"x-api-key": " "},
        {"cookie": f"x_api_key={USER}"}, {"api-key": USER},
    ])  # fmt: skip
    async def test_and_in_no_other_way(self, headers: dict[str, str]) -> None:
        assert (await call("/v1/models", "GET", None, **headers)).status_code == 401

    async def test_the_query_is_looked_at_where_the_endpoint_says_so_only(self) -> None:
        assert (await call(f"/v1/models?x_api_key={USER}", "GET")).status_code == 401
        scope = {"type": "http", "headers": [], "query_string": f"x_api_key={USER}".encode()}
        assert presented_keys(scope, in_query=True) == (USER,)
        assert presented_keys(scope, in_query=False) == ()


@pytest.mark.parametrize(
    ("query", "accepted"), [(f"x_api_key={USER}", False), (f"x_api_key={ADMIN}", True), ("", False)]
)
async def test_a_websocket_says_its_key_in_its_url(query: str, accepted: bool) -> None:
    async def reached(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1000)

    [route] = guarded([WebSocketRoute("/ws", reached)], authenticator_of_keys(), ActivityLog())
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket",
        "path": "/ws",
        "headers": [],
        "query_string": query.encode(),
        "client": ("::1", 1),
    }
    await Router([route])(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"][not accepted :]
    assert sent[-1]["code"] == (1000 if accepted else 1008)


GENERATING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": HELLO,
    "/v1/completions": {"model": "fake", "prompt": "x"},
    "/v1/messages": HELLO | {"max_tokens": 5},
    "/v1/responses": {"model": "fake", "input": "x"},
    "/infill": {"model": "fake", "input_prefix": "x", "input_suffix": "y"},
    "/api/generate": {"model": "fake", "prompt": "x"},
    "/api/chat": HELLO,
    "/rpc": {"jsonrpc": "2.0", "id": 1, "method": "create_message", "params": {"message": "x"}},
    "/stream": {"message": "x"},
    "/chat/blocking": {"prompt": "x"},
    "/chat/stream": {"prompt": "x"},
}


async def whose(key: str | None, **settings: Any) -> tuple[str, str]:
    """Whose prompts the engine sees, and with whom their cells are shared, over every surface."""
    engine = FakeEngine("fake", says("Hi"))
    app = app_with(engine, **settings) if key is None else app_with_keys(engine, **settings)
    headers = {} if key is None else {"x-api-key": key}
    async with http_client(app, headers) as client:
        for path, body in GENERATING.items():
            assert (await client.post(path, json=body)).status_code == 200, path
    async with connected(app, await new_session(app, key), key=key) as socket:
        await socket.generate(message="x")
        await socket.until_end()
    assert len(engine.requests) == len(GENERATING) + 1
    [found] = {(request.client, request.cache_scope) for request in engine.requests}
    return found


@pytest.mark.fault("A7")
async def test_each_key_has_cached_prompts_of_its_own() -> None:
    assert await whose(None) == ("", "")
    (user, scope), (other, other_scope) = await whose(USER), await whose(BOTH)
    assert len({user, other, ""}) == len({scope, other_scope, ""}) == 3
    assert USER not in user + scope
    assert await whose(USER, share_prefix_across_keys=True) == (user, "")


async def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    _, key = file.create("laptop", [Scope.INFERENCE])
    engine = FakeEngine("fake", says("Hi"))
    authenticator = Authenticator(Keyring((), file), Lockout(10, lambda: 0.0))
    app = create_app(Settings(), FakeRegistry(engine), authenticator=authenticator)
    session = await new_session(app, key)
    async with connected(app, session, key=key) as socket:
        await socket.generate(message="x")
        await socket.until_end()
        file.revoke("laptop")
        socket.call("generate", message="x")
        method, params = await socket.notification()
        assert (method, params["error"]["message"]) == ("error", "Unauthorized")
        await socket.ended()
    assert (socket.closed, len(engine.requests)) == (1008, 1)


@pytest.mark.parametrize(("key", "may"), [(None, True), (BOTH, True), (USER, False)])
async def test_what_stays_in_memory_is_for_admins(key: str | None, may: bool) -> None:
    engine = FakeEngine("fake", says("Hi"))
    app = app_with(engine) if key is None else app_with_keys(engine)
    async with http_client(app, {} if key is None else {"x-api-key": key}) as client:
        body = {"model": "fake", "prompt": "x", "stream": False, "keep_alive": -1}
        assert (await client.post("/api/generate", json=body)).status_code == 200
        assert engine.idle_limit_s == (None if may else 300)
        freed = await client.post("/api/generate", json={"model": "fake", "keep_alive": 0})
    assert freed.status_code == (200 if may else 403)


async def test_each_key_has_kept_responses_of_its_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kolosal.db'}"
    app = app_with_keys(FakeEngine("fake", says("Hi")), store_url=url)
    item = {"type": "message", "role": "user", "content": "my secret", "id": "msg_1"}
    reference = {"type": "item_reference", "id": "msg_1"}
    async with http_client(app, {"x-api-key": USER}) as one, http_client(app, {"x-api-key": BOTH}) as other:
        kept = (await one.post("/v1/responses", json={"model": "fake", "input": [item]})).json()["id"]
        assert (await one.get(f"/v1/responses/{kept}")).status_code == 200
        assert (await other.get(f"/v1/responses/{kept}")).status_code == 404
        assert (await other.delete(f"/v1/responses/{kept}")).status_code == 404
        for body in ({"input": [reference]}, {"input": "x", "previous_response_id": kept}):
            assert (await other.post("/v1/responses", json={"model": "fake"} | body)).status_code == 400
            assert (await one.post("/v1/responses", json={"model": "fake"} | body)).status_code == 200
    await app.state.services.store.close()


async def test_a_key_of_the_settings_counts() -> None:
    async with http_client(app_with(api_key=BOTH)) as client:
        assert (await client.get("/engines")).status_code == 401
        assert (await client.get("/engines", headers={"x-api-key": BOTH})).status_code == 200


class TestModelRoots:
    @staticmethod
    async def add(app: Starlette, path: Path, **fields: str) -> dict[str, Any]:
        body = {"engine_id": "new", "model_path": str(path), "load_immediately": False, **fields}
        async with http_client(app, {"x-api-key": BOTH}) as client:
            response = await client.post("/engines", json=body)
        refused: dict[str, Any] = {"code": None} if response.status_code == 201 else response.json()["error"]
        return refused

    @staticmethod
    def models(folder: Path, *names: str) -> None:
        folder.mkdir(exist_ok=True)
        for name in names:
            write_tiny_gguf(folder / name)

    async def test_with_keys_models_come_from_the_folders_of_known_ones(self, tmp_path: Path) -> None:
        self.models(tmp_path / "ours", "a.gguf", "b.gguf")
        self.models(tmp_path / "others", "c.gguf")
        known = ModelEntry(id="a", path=str(tmp_path / "ours" / "a.gguf"))
        b, c, draft = (
            tmp_path / "ours" / "b.gguf",
            tmp_path / "others" / "c.gguf",
            {"draft_model_path": "/etc/x.gguf"},
        )
        assert (await self.add(app_with_keys(models=(known,)), b))["code"] is None
        refused = await self.add(app_with_keys(models=(known,)), c)
        assert (refused["code"], refused["param"]) == ("model_path_access_denied", "model_path")
        refused = await self.add(app_with_keys(models=(known,)), b, **draft)
        assert (refused["code"], refused["param"]) == ("model_path_access_denied", "draft_model_path")
        assert (await self.add(app_with_keys(), b))["code"] == "model_path_access_denied"
        assert (await self.add(app_with_keys(model_roots=(str(tmp_path),)), c))["code"] is None
        assert (await self.add(app_with(models=(known,)), c))["code"] is None

    async def test_without_keys_the_setting_counts_too(self, tmp_path: Path) -> None:
        self.models(tmp_path, "c.gguf")
        assert (await self.add(app_with(model_roots=("/srv/models",)), tmp_path / "c.gguf"))[
            "code"
        ] is not None
