"""`/v1/keys`: keys made, listed and taken back over HTTP, and never so that nobody could look after the daemon any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.security.keys import KeyFile
from kolosal.security.startup_checks import authenticator_of
from tests.fakes import FakeRegistry, http_client
from tests.settings import settings_of

CONFIGURED = "a-key-of-the-configuration"


def app_of(path: Path | None, settings: Settings | None = None) -> Starlette:
    settings = settings or Settings()
    file = None if path is None else KeyFile(path)
    return create_app(settings, FakeRegistry(), authenticator=authenticator_of(settings, file))


async def ask(
    app: Starlette, verb: str, path: str = "/v1/keys", key: str | None = None, **fields: object
) -> httpx.Response:
    async with http_client(app, {} if key is None else {"x-api-key": key}) as client:
        return await client.request(verb, path, json=fields or None)


async def made(app: Starlette, name: str, *scopes: str, key: str | None = None) -> dict[str, Any]:
    answer = await ask(app, "POST", key=key, name=name, scopes=[*scopes])
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_key_is_shown_once_and_works_until_it_is_taken_back(tmp_path: Path) -> None:
    app = app_of(tmp_path / "keys.json")
    assert (await ask(app, "GET")).json() == {"keys": [], "needed": False}
    assert (await ask(app, "GET", "/v1/keys/self")).json() == {
        "needed": False, "name": None, "scopes": ["admin", "inference"],
    }  # fmt: skip
    operator = (await made(app, "operator", "admin", "inference"))["key"]
    guest = await made(app, "guest", "inference", key=operator)
    listed = await ask(app, "GET", key=operator)
    assert [entry["name"] for entry in listed.json()["keys"]] == ["operator", "guest"]
    assert operator not in listed.text
    assert "sha256" not in listed.text
    own = (await ask(app, "GET", "/v1/keys/self", key=guest["key"])).json()
    assert own == {"needed": True, "name": "guest", "scopes": ["inference"]}
    assert (await ask(app, "GET", key=guest["key"])).status_code == 403
    assert (await ask(app, "DELETE", "/v1/keys/guest", key=operator)).json()["id"] == guest["id"]
    assert (await ask(app, "GET", "/v1/keys/self", key=guest["key"])).status_code == 401


async def test_somebody_can_always_look_after_the_daemon(tmp_path: Path) -> None:
    app = app_of(tmp_path / "keys.json")
    first = await ask(app, "POST", name="guest", scopes=["inference"])
    assert (first.status_code, first.json()["error"]["param"]) == (400, "scopes")
    operator = (await made(app, "operator", "admin"))["key"]
    last = await ask(app, "DELETE", "/v1/keys/operator", key=operator)
    assert (last.status_code, "last with the scope 'admin'" in last.text) == (409, True)
    other = (await made(app, "other", "admin", key=operator))["key"]
    assert (await ask(app, "DELETE", "/v1/keys/operator", key=other)).status_code == 200


async def test_keys_of_the_configuration_stay_there(tmp_path: Path) -> None:
    app = app_of(tmp_path / "keys.json", settings_of(api_key=CONFIGURED))
    [entry] = (await ask(app, "GET", key=CONFIGURED)).json()["keys"]
    assert (entry["name"], entry["from_configuration"]) == ("auth.api_key", True)
    refused = await ask(app, "DELETE", "/v1/keys/auth.api_key", key=CONFIGURED)
    assert (refused.status_code, "stands in the configuration" in refused.text) == (409, True)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": "a b", "scopes": ["admin"]}, 400),
        ({"name": "operator", "scopes": ["admin"]}, 409),
        ({"name": "x", "scopes": []}, 400),
        ({"name": "x", "scopes": ["root"]}, 400),
        ({"name": "x", "scope": "admin"}, 400),
        ({}, 400),
    ],
)
async def test_what_is_wrong_is_said(tmp_path: Path, fields: dict[str, object], status: int) -> None:
    app = app_of(tmp_path / "keys.json")
    key = (await made(app, "operator", "admin"))["key"]
    assert (await ask(app, "POST", "/v1/keys", key, **fields)).status_code == status
    assert (await ask(app, "DELETE", "/v1/keys/nobody", key=key)).status_code == 404


async def test_without_a_place_for_keys_that_is_said() -> None:
    refused = await ask(app_of(None), "POST", name="x", scopes=["admin"])
    assert (refused.status_code, "auth.keys_file" in refused.text) == (400, True)
