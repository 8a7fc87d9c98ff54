"""Requests that a browser was made to send, and headers that no honest client has."""

from __future__ import annotations

from typing import Any, ClassVar

import httpx
import pytest

from kolosal.http.guard import MAX_HEADER_BYTES, MAX_HEADERS
from tests.fakes import AsgiRequest, FakeEngine, app_with, http_client, says
from tests.routes.chats import HELLO

APP = "https://app.example.com"


async def chat(headers: dict[str, str], **settings: Any) -> tuple[httpx.Response, FakeEngine]:
    """A request that gets something done, as a page sends it that may not set a content type."""
    engine = FakeEngine("fake", says("Hi"))
    async with http_client(app_with(engine, **settings)) as client:
        whole = {"content-type": "text/plain", **headers}
        return await client.post("/v1/chat/completions", json=HELLO, headers=whole), engine


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.fault("A4")
async def test_a_name_that_was_made_to_mean_this_machine_is_refused() -> None:
    response, engine = await chat({"host": "evil.com:8080"})
    assert code_of(response) == (403, "host_not_allowed")
    assert "server.allowed_hosts" in response.json()["error"]["message"]
    assert response.headers["x-request-id"]
    assert engine.requests == []
    assert (await chat({"host": "evil.com:8080"}, allowed_hosts=("evil.com",)))[0].status_code == 200


@pytest.mark.fault("A4")
@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/docs", "/nowhere"])
async def test_it_may_not_even_look(path: str) -> None:
    async with http_client(app_with()) as client:
        assert code_of(await client.get(path, headers={"host": "evil.com"})) == (403, "host_not_allowed")


async def test_refusals_have_the_shape_of_their_dialect() -> None:
    async with http_client(app_with()) as client:
        response = await client.post("/v1/messages", headers={"host": "evil.com"})
    assert response.status_code == 403
    assert response.json()["error"]["type"] == "permission_error"
    assert response.json()["type"] == "error"


@pytest.mark.fault("A4")
@pytest.mark.parametrize(
    "origin", ["http://evil.com", "null", "http://192.168.0.7:3000", "https://localhost.evil.com"]
)
async def test_pages_of_others_may_not_get_anything_done(origin: str) -> None:
    response, engine = await chat({"origin": origin})
    assert code_of(response) == (403, "origin_not_allowed")
    assert "server.cors_origins" in response.json()["error"]["message"]
    assert engine.requests == []
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "app://obsidian.md", "vscode-webview://0d1e", "tauri://localhost", "file://"],
)
async def test_pages_of_this_machine_may_unless_told_otherwise(origin: str) -> None:
    asked = {"origin": origin, "sec-fetch-site": "cross-site", "access-control-request-method": "POST"}
    for allow, status in ((True, 200), (False, 403)):
        response, engine = await chat({"origin": origin}, allow_local_apps=allow)
        assert (response.status_code, bool(engine.requests)) == (status, allow)
        assert response.headers.get("access-control-allow-origin") == (origin if allow else None)
        async with http_client(app_with(allow_local_apps=allow)) as client:
            preflight = await client.options("/v1/chat/completions", headers=asked)
            looked = await client.get(
                "/v1/models", headers={"origin": origin, "sec-fetch-site": "cross-site"}
            )
        assert preflight.status_code == (204 if allow else 403)
        assert looked.status_code == status


@pytest.mark.parametrize("host", ["host.docker.internal:8080", "box.local", "app.localhost"])
async def test_names_of_this_machine_are_answered_unless_told_otherwise(host: str) -> None:
    for allow in (True, False):
        response, _ = await chat({"host": host}, allow_local_apps=allow)
        assert response.status_code == (200 if allow or host.endswith(".localhost") else 403)


async def test_our_own_pages_and_programs_may() -> None:
    assert (await chat({}))[0].status_code == 200
    assert (await chat({"origin": "http://localhost"}))[0].status_code == 200


@pytest.mark.fault("A4")
@pytest.mark.parametrize(("headers", "status"), [
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty", "origin": "http://evil.com"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "empty", "origin": "https://app.example.com"}, 200),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
    ({"sec-fetch-site": "same-origin", "sec-fetch-dest": "empty"}, 200),
    ({"sec-fetch-site": "none", "sec-fetch-dest": "document"}, 200),
])  # fmt: skip
@pytest.mark.parametrize("verb", ["GET", "HEAD"])
async def test_an_image_of_another_site_generates_nothing(
    verb: str, headers: dict[str, str], status: int
) -> None:
    engine = FakeEngine("fake", says("Hi"))
    app = app_with(engine, cors_origins=("https://app.example.com",))
    async with http_client(app, headers) as client:
        response = await client.request(verb, "/chat/blocking?prompt=x")
    assert (response.status_code, bool(engine.requests)) == (status, status == 200)


@pytest.mark.fault("A4")
async def test_a_page_of_others_may_read_nothing() -> None:
    async with http_client(app_with()) as client:
        response = await client.get("/v1/models", headers={"origin": "http://evil.com"})
    assert "access-control-allow-origin" not in response.headers


async def test_without_a_host_it_is_no_browser() -> None:
    request = AsgiRequest("/health", method="GET")
    request.leave()
    await request.start(app_with())
    assert request.status == 200


@pytest.mark.parametrize("headers", [
    [(b"a", b"b")] * (MAX_HEADERS + 1), [(b"a", b"b" * MAX_HEADER_BYTES)],
])  # fmt: skip
async def test_too_many_and_too_long_headers_are_431(headers: list[tuple[bytes, bytes]]) -> None:
    request = AsgiRequest("/health", method="GET")
    request.scope["headers"] = headers
    await request.start(app_with())
    assert (request.status, b"headers_too_large" in request.content) == (431, True)


@pytest.mark.parametrize("headers", [
    [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], [(b"host", b"localhost"), (b"host", b"localhost")],
])  # fmt: skip
async def test_headers_that_can_be_read_in_two_ways_are_400(headers: list[tuple[bytes, bytes]]) -> None:
    request = AsgiRequest("/health", method="GET")
    request.scope["headers"] = headers
    await request.start(app_with())
    assert request.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/%2e%2e/%2e%2e/etc/passwd",
        "/docs/%2e%2e%2fpages.py",
        "/engines/%00",
        "/v1/models/%0d%0aX: y",
        "/docs/..%5c",
    ],
)
async def test_paths_that_want_out_lead_nowhere(path: str) -> None:
    async with http_client(app_with()) as client:
        response = await client.get(path)
    assert response.status_code == 404
    assert "x" not in response.headers


async def test_a_websocket_of_a_foreign_page_is_closed() -> None:
    request = AsgiRequest("/health")
    headers = [(b"host", b"localhost"), (b"origin", b"http://evil.com")]
    request.scope |= {"type": "websocket", "headers": headers}
    await request.start(app_with())
    assert request.sent == [{"type": "websocket.close", "code": 1008}]


class TestCors:
    PREFLIGHT: ClassVar = {"origin": APP, "access-control-request-method": "POST"}

    async def preflight(self, headers: dict[str, str], *origins: str) -> httpx.Response:
        async with http_client(app_with(cors_origins=origins, allow_local_apps=False)) as client:
            return await client.options("/v1/chat/completions", headers=headers)

    async def test_it_is_off_where_nobody_may(self) -> None:
        response = await self.preflight(self.PREFLIGHT)
        assert response.status_code == 405
        assert not [name for name in response.headers if name.startswith("access-control")]

    async def test_a_listed_origin_may_ask_and_read(self) -> None:
        asked = self.PREFLIGHT | {"access-control-request-headers": "authorization,content-type"}
        allowed = await self.preflight(asked, APP)
        assert (allowed.status_code, allowed.content) == (204, b"")
        assert allowed.headers["access-control-allow-origin"] == APP
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert allowed.headers["access-control-allow-headers"] == "authorization,content-type"
        assert "Origin" in allowed.headers["vary"]
        assert "access-control-allow-private-network" not in allowed.headers
        response, _ = await chat({"origin": APP}, cors_origins=(APP,))
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == APP
        assert response.headers["vary"] == "Origin"

    async def test_errors_can_be_read_too(self) -> None:
        response, _ = await chat({"origin": APP}, cors_origins=(APP,), api_key="a-key-of-our-own-1234")
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (401, APP)

    async def test_a_page_of_the_internet_may_ask_for_this_network(self) -> None:
        asked = self.PREFLIGHT | {"access-control-request-private-network": "true"}
        assert (await self.preflight(asked, APP)).headers["access-control-allow-private-network"] == "true"

    async def test_other_origins_may_nothing(self) -> None:
        refused = await self.preflight(self.PREFLIGHT | {"origin": "https://evil.com"}, APP)
        assert code_of(refused) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in refused.headers
        response, engine = await chat({"origin": "https://evil.com"}, cors_origins=(APP,))
        assert code_of(response) == (403, "origin_not_allowed")
        assert engine.requests == []

    async def test_without_an_origin_nothing_is_added(self) -> None:
        response, _ = await chat({}, cors_origins=(APP,))
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("access-control")]

    async def test_an_endless_list_of_headers_is_not_repeated(self) -> None:
        asked = self.PREFLIGHT | {"access-control-request-headers": "a," * 1000}
        assert "access-control-allow-headers" not in (await self.preflight(asked, APP)).headers
