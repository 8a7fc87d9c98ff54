"""A daemon with a key, over real sockets: every protocol, the official Ollama client, and WebSockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.e2e.helpers import DEADLINE_S
from tests.e2e.surfaces import SURFACES
from tests.http.test_daemon import daemon
from tests.tiny_gguf import write_tiny_gguf

KEY = "a-key-of-these-tests-123"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon with one engine, whose words are given."""
    path = tmp_path_factory.mktemp("models") / "one.gguf"
    write_tiny_gguf(path)
    model = {"id": "one", "path": str(path), "parameters": {"n_ctx": 8192}}
    with daemon(api_key=KEY, models=[model], lockout_failures=0) as (_, url):
        headers = {"x-api-key": KEY}
        assert httpx.post(f"{url}/engines/one/load", headers=headers, trust_env=False).status_code == 200
        yield url


@pytest.mark.parametrize("name", SURFACES)
def test_x03_with_its_key_every_protocol_answers(url: str, name: str) -> None:
    headers = {"x-api-key": KEY}
    with httpx.Client(base_url=url, headers=headers, timeout=DEADLINE_S, trust_env=False) as http:
        assert SURFACES[name](http, "one", f"<say>{name}</say>") == name


@pytest.mark.parametrize("name", SURFACES)
def test_x03_without_one_none_does(url: str, name: str) -> None:
    with httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False) as http:
        with pytest.raises(AssertionError):
            SURFACES[name](http, "one", "<say>secrets</say>")
        assert http.get("/health").status_code == 200


def test_o05_the_official_client_with_a_key(url: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    with ollama.Client(host=url, headers=headers, timeout=DEADLINE_S, trust_env=False) as client:
        assert [model.model for model in client.list().models] == ["one"]
        assert client.show("one").modelinfo is not None
        parts = client.chat("one", [ollama.Message(role="user", content="<say>Hello</say>")], stream=True)
        assert "".join(part.message.content or "" for part in parts) == "Hello"
        assert [model.name for model in client.ps().models] == ["one"]
    stranger = ollama.Client(host=url, timeout=DEADLINE_S, trust_env=False)
    with stranger, pytest.raises(ollama.ResponseError) as refused:
        stranger.chat("one", [ollama.Message(role="user", content="Hello")])
    assert refused.value.status_code == 401


class TestWebSocket:
    @staticmethod
    def session(url: str) -> str:
        made = httpx.post(f"{url}/create_session", headers={"x-api-key": KEY}, trust_env=False)
        return f"{url.replace('http', 'ws', 1)}/ws/{made.json()['session_id']}"

    @pytest.mark.parametrize(
        ("query", "headers"),
        [
            (f"?x_api_key={KEY}", {}),
            ("", {"X-API-Key": KEY}),
            ("", {"Authorization": f"Bearer {KEY}"}),
        ],
    )
    def test_a_key_is_in_the_url_or_in_a_header(self, url: str, query: str, headers: dict[str, str]) -> None:
        with connect(self.session(url) + query, additional_headers=headers, proxy=None) as socket:
            socket.send(json.dumps({"jsonrpc": "2.0", "method": "cancel", "id": 1}))
            assert json.loads(socket.recv(DEADLINE_S))["error"]["code"] == -32003

    @pytest.mark.parametrize("query", ["", "?x_api_key=wrong", f"?api_key={KEY}"])
    def test_w07_who_has_none_is_told_so_and_closed_with_1008(self, url: str, query: str) -> None:
        with connect(self.session(url) + query, proxy=None) as socket:
            message: dict[str, Any] = json.loads(socket.recv(DEADLINE_S))
            assert message["method"] == "error"
            assert message["params"]["error"] == {"code": -32000, "message": "Unauthorized"}
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(DEADLINE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
