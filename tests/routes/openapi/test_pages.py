"""`/openapi.json` and `/docs`, as a browser gets them."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest

from kolosal.routes import all_routes
from kolosal.routes.openapi.document import build_document
from tests.fakes import FakeEngine, app_with, http_client

STATIC = {
    each.name: each.read_text(encoding="utf-8")
    for each in (files("kolosal.routes.openapi") / "static").iterdir()
}


async def test_the_document_is_served() -> None:
    async with http_client(app_with(FakeEngine())) as client:
        first = await client.get("/openapi.json")
        second = await client.get("/openapi.json")
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json; charset=utf-8"
    assert first.content == second.content
    assert first.json() == json.loads(
        json.dumps(build_document(all_routes()))
    )  # which test_document.py validates


async def test_it_is_built_for_the_routes_of_its_application() -> None:
    app = app_with()
    app.router.routes = [route for route in app.router.routes if "engines" not in getattr(route, "path", "")]
    async with http_client(app) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert "/health" in paths
    assert "/engines" not in paths


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/docs.js"])
async def test_a_browser_that_has_it_is_not_sent_it_again(path: str) -> None:
    async with http_client(app_with()) as client:
        tag = (await client.get(path)).headers["etag"]
        known = await client.get(path, headers={"if-none-match": f'"other", W/{tag}'})
        other = await client.get(path, headers={"if-none-match": '"other"'})
    assert known.status_code == 304
    assert known.content == b""
    assert known.headers["etag"] == tag
    assert other.status_code == 200


async def test_the_page_may_load_from_this_daemon_only() -> None:
    async with http_client(app_with()) as client:
        response = await client.get("/docs")
    policy = response.headers["content-security-policy"]
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_all_that_the_page_asks_for_is_served() -> None:
    async with http_client(app_with()) as client:
        page = (await client.get("/docs")).text
        wanted = re.findall(r'(?:src|href)="([^"]+)"', page)
        found = {path: await client.get(f"/{path}") for path in wanted}
    assert {"docs/docs.js", "docs/docs.css", "openapi.json"} <= set(wanted)
    assert {path: each.status_code for path, each in found.items()} == dict.fromkeys(wanted, 200)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("docs.css", "text/css; charset=utf-8"),
        ("docs.js", "text/javascript; charset=utf-8"),
        ("schema.js", "text/javascript; charset=utf-8"),
        ("examples.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml; charset=utf-8"),
    ],
)
async def test_files_have_their_media_type(name: str, media_type: str) -> None:
    async with http_client(app_with()) as client:
        response = await client.get(f"/docs/{name}")
    assert response.headers["content-type"] == media_type
    assert response.content == (files("kolosal.routes.openapi") / "static" / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["other.js", "%2e%2e%2fpages.py", "..%5cpages.py", "__init__.py", "docs.html%00"]
)
async def test_no_other_file_is_served(name: str) -> None:
    async with http_client(app_with()) as client:
        response = await client.get(f"/docs/{name}")
    assert response.status_code == 404


@pytest.mark.parametrize("name", [*STATIC])
def test_nothing_comes_from_another_host_or_stands_inline(name: str) -> None:
    text = STATIC[name].replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|innerHTML|\son\w+=|<script>|<style", text)
