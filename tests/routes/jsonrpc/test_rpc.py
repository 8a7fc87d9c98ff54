"""`/rpc`: envelopes, codes, batches and notifications."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.errors import (
    ContextLengthExceeded,
    Draining,
    EngineDied,
    GenerationFailed,
    KolosalError,
    LoadFailed,
    QueueFull,
)
from kolosal.routes.jsonrpc.envelope import RpcCall, RpcError, parse_call, parse_json
from tests.fakes import AsgiRequest, FakeEngine, app_with, eventually, http_client, says
from tests.routes.jsonrpc.calling import WEATHER, post, request


def error_of(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer.keys() == {"jsonrpc", "error", "id"}
    assert answer["jsonrpc"] == "2.0"
    error: dict[str, Any] = answer["error"]
    assert {"code", "message"} <= error.keys() <= {"code", "message", "data"}
    return error


@pytest.mark.parametrize("given_id", ["a", 7, 0, -1, "", None, "é" * 256])
async def test_R03_an_answer_has_a_result_or_an_error_and_the_id_of_its_request(given_id: object) -> None:
    engine = FakeEngine(script=says("Hello"))
    good = (await post(engine, request(message="Hi", id=given_id))).json()
    assert good.keys() == {"jsonrpc", "result", "id"}
    bad = (await post(engine, request("nope", id=given_id))).json()
    error_of(bad)
    assert good["id"] == bad["id"] == given_id
    assert type(good["id"]) is type(given_id)


@pytest.mark.parametrize(
    ("content", "status", "code", "words"),
    [
        ("{", 400, -32700, "Parse error"), ("", 400, -32700, "Parse error"), (b"\xff{}", 400, -32700, "utf-8"),
        ('{"jsonrpc": "2.0", "id": NaN}', 400, -32700, "Parse error"),
        ("5", 400, -32600, "object"), ("null", 400, -32600, "object"), ("[]", 400, -32600, "1 to 64"),
        ([{}] * 65, 400, -32600, "1 to 64"),
        ({"method": "tool_list", "id": 1}, 400, -32600, "Invalid JSON-RPC version"),
        ({"jsonrpc": "1.0", "method": "tool_list", "id": 1}, 400, -32600, "Invalid JSON-RPC version"),
        ({"jsonrpc": 2.0, "method": "tool_list", "id": 1}, 400, -32600, "Invalid JSON-RPC version"),
        ({"jsonrpc": "2.0", "id": 1}, 400, -32600, "method"), (request(method=5), 400, -32600, "method"),  # type: ignore[arg-type]
        (request(id=1.5), 400, -32600, "id"), (request(id=True), 400, -32600, "id"), (request(id=[]), 400, -32600, "id"),
        (request(id="x" * 257), 400, -32600, "id"),
        (request("nope"), 200, -32601, "Method 'nope' not found"),
        (request("create_message") | {"params": [1]}, 200, -32602, "params must be an object"),
        (request(), 200, -32602, "'message' or 'history'"), (request(history=[]), 200, -32602, "'message' or 'history'"),
        (request(message="x", temperature=3), 200, -32602, "temperature must be at most 2, not 3"),
        (request(message="x", tools=[{}]), 200, -32602, "tools.0.name"),
        (request(message="x", tools=[WEATHER, WEATHER]), 200, -32602, "tools.1.name must be unique"),
        (request(message="x", tools=[{"name": "f", "parameters": "x"}]), 200, -32602, "tools.0.parameters"),
        (request(message="x", response_format={"type": "json_object"}), 200, -32602, "response_format is not supported"),
        (request(message="x", tools=[{"name": "f", "parameters": {"title": "x" * 300_000}}]), 200, -32602, "tools.0.parameters"),
        (request(message="x", model="other"), 200, -32602, "Model 'other' not found"),
    ],
)  # fmt: skip
async def test_R04_every_fault_has_its_code_and_status(
    content: object, status: int, code: int, words: str
) -> None:
    engine = FakeEngine(script=says("a"))
    response = await post(engine, content)
    error = error_of(response.json())
    assert (response.status_code, error["code"]) == (status, code)
    assert words in error["message"]
    assert len(error["message"]) < 300
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert not engine.requests
    if code == -32602:
        assert error["message"].startswith("Invalid parameters for create_message: ")


@pytest.mark.parametrize(
    ("failure", "status", "code", "kind"),
    [
        (GenerationFailed("decode"), 200, -32603, "generation_failed"), (EngineDied("gone"), 200, -32603, "engine_died"),
        (QueueFull("full", retry_after_s=3), 429, -32603, "queue_full"), (Draining("bye"), 503, -32603, "server_shutting_down"),
        (ContextLengthExceeded("too long"), 200, -32602, "context_length_exceeded"),
    ],
)  # fmt: skip
async def test_R04_what_fails_in_an_engine_is_told(
    failure: KolosalError, status: int, code: int, kind: str
) -> None:
    response = await post(FakeEngine(script=lambda _: [failure]), request(message="Hi", id="x"))
    error = error_of(response.json())
    assert (response.status_code, error["code"], error["data"]["code"]) == (status, code, kind)
    assert failure.message in error["message"]
    assert response.json()["id"] == "x"
    assert code != -32603 or error["message"].startswith("Error processing create_message: ")


async def test_R04_a_model_that_does_not_load_and_an_engine_that_dies_half_way_are_told() -> None:
    engine = FakeEngine()
    engine.load_error = LoadFailed("broken")
    assert error_of((await post(engine, request(message="Hi"))).json())["code"] == -32603
    dies = FakeEngine(script=lambda each: [*list(says("Hel")(each))[:1], EngineDied("gone")])
    assert error_of((await post(dies, request(message="Hi"))).json())["data"]["code"] == "engine_died"


async def test_R04_a_full_engine_says_when_to_come_back() -> None:
    engine = FakeEngine()
    engine.refusal = QueueFull("full", retry_after_s=2)
    response = await post(engine, request(message="Hi"))
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert error_of(response.json())["data"]["retry_after_s"] == 2


async def test_R04_without_an_engine_there_is_no_pipeline() -> None:
    error = error_of((await post(None, request(message="Hi"))).json())
    assert error == {"code": -32603, "message": "Model pipeline is not available."}


async def test_R04_errors_of_the_transport_have_the_shape_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(script=says("a"))
    async with http_client(app_with(engine, max_body_bytes=2048)) as client:
        told = [
            await client.post("/rpc", content=b"x" * 3000),
            await client.post("/rpc", content=b"{}", headers={"content-encoding": "gzip"}),
            await client.get("/rpc"),
            await client.get("/rpc/nope"),
        ]
        codes = [(each.status_code, error_of(each.json())["code"], each.json()["id"]) for each in told]
        assert codes == [(413, -32600, None), (415, -32600, None), (405, -32600, None), (404, -32600, None)]
        monkeypatch.setattr(engine, "generate", lambda _request: 1 / 0)
        broken = await client.post("/rpc", json=request(message="Hi"))
    assert (broken.status_code, error_of(broken.json())["code"]) == (500, -32603)


async def test_R05_the_daemon_has_no_tools_of_its_own() -> None:
    for body in (request("tool_list"), {"jsonrpc": "2.0", "method": "tool_list", "id": 1}):
        response = await post(FakeEngine(), body)
        assert response.json() == {"jsonrpc": "2.0", "result": {"tools": []}, "id": 1}


async def test_R08_a_notification_gets_no_answer_and_makes_no_text() -> None:
    engine = FakeEngine(script=says("a"))
    told = request(message="Hi")
    del told["id"]
    response = await post(engine, told)
    assert (response.status_code, response.content) == (204, b"")
    response = await post(engine, [told, told])
    assert (response.status_code, response.content) == (204, b"")
    assert not engine.requests


async def test_R08_a_batch_is_answered_in_order_without_its_notifications() -> None:
    told = request("tool_list")
    del told["id"]
    content = [request(message="Hi", id="a"), told, request("nope", id=2), 5, request("tool_list", id=3)]
    response = await post(FakeEngine(script=says("Hello")), content)
    first, second, third, fourth = response.json()
    assert response.status_code == 200
    assert (first["id"], first["result"]["content"]) == ("a", "Hello")
    assert (second["id"], error_of(second)["code"]) == (2, -32601)
    assert (third["id"], error_of(third)["code"]) == (None, -32600)
    assert fourth == {"jsonrpc": "2.0", "result": {"tools": []}, "id": 3}


async def test_who_leaves_a_batch_is_generated_nothing_for() -> None:
    engine = FakeEngine()
    call = request(message="Hi")
    asked = AsgiRequest("/rpc", [call, call])
    answering = asked.start(app_with(engine))
    await eventually(lambda: len(engine.requests) == 2)
    asked.leave()
    await answering
    assert sorted(engine.aborted) == [0, 1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(("jsonrpc", "method", "params", "id", "x")), inner)
    ),
    max_leaves=10,
)


@given(json_values)
def test_whatever_json_it_is_it_is_a_call_or_refused(value: object) -> None:
    try:
        assert isinstance(parse_call(value), RpcCall)
    except RpcError as exc:
        orjson.dumps(exc.body())


@given(st.binary() | st.text())
def test_whatever_bytes_they_are_they_are_json_or_refused(data: bytes | str) -> None:
    with contextlib.suppress(RpcError):
        parse_json(data)
