"""What is really answered to the examples has the keys that the document tells: all of them, and no others."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from kolosal.routes import all_routes
from kolosal.routes.openapi.document import build_document
from kolosal.schema import TokenDelta, TokenLogprob, TokenLogprobs
from tests.fakes import FakeEngine, app_with, http_client, says

DOCUMENT = orjson.loads(orjson.dumps(build_document(all_routes())))

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def closed(part: Any) -> Any:
    """A schema where objects have no keys but their own, unless it says that they may."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: closed(value) for key, value in part.items()}
    return {"additionalProperties": False, **made} if "properties" in part else made


def answer_schema(path: str, verb: str) -> dict[str, Any]:
    responses = DOCUMENT["paths"][path][verb]["responses"]
    content = next(answer["content"] for status, answer in responses.items() if status[0] == "2")
    schema: dict[str, Any] = content["application/json"]["schema"]
    return closed({**schema, "components": DOCUMENT["components"]})  # type: ignore[no-any-return]


def check(path: str, verb: str, response: httpx.Response) -> None:
    assert response.is_success, response.text
    jsonschema_rs.validate(answer_schema(path, verb), response.json())


def with_example() -> list[str]:
    return [
        path
        for path, verbs in DOCUMENT["paths"].items()
        if "post" in verbs
        and "requestBody" in verbs["post"]
        and "application/json" in verbs["post"]["responses"].get("200", {}).get("content", {})
        and "/engines/" not in path  # these want a file or a process
    ]


@pytest.mark.parametrize("path", with_example())
async def test_an_example_is_answered_as_told(path: str) -> None:
    example = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
    async with http_client(app_with(FakeEngine("tiny", says("Hel", "lo")))) as client:
        response = await client.post(path, json=example)
    check(path, "post", response)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/engines",
        "/engines/{engine_id}",
        "/engines/{engine_id}/status",
        "/v1/models",
        "/v1/models/{model}",
        "/metrics",
        "/metrics/system",
        "/metrics/completion",
        "/v1/engines/{engine_id}/logs",
    ],
)
async def test_what_is_looked_at_is_as_told(path: str) -> None:
    async with http_client(app_with(FakeEngine("tiny"))) as client:
        response = await client.get(path.format(engine_id="tiny", model="tiny"))
    check(path, "get", response)


async def test_a_removed_engine_is_answered_as_told() -> None:
    async with http_client(app_with(FakeEngine("tiny"))) as client:
        response = await client.delete("/engines/tiny")
    check("/engines/{engine_id}", "delete", response)


async def test_a_kept_response_is_answered_as_told() -> None:
    async with http_client(app_with(FakeEngine("tiny", says("Hello")))) as client:
        made = await client.post("/v1/responses", json={"model": "tiny", "input": "Hello"})
        path = f"/v1/responses/{made.json()['id']}"
        shown, items = await client.get(path), await client.get(f"{path}/input_items")
        deleted = await client.delete(path)
    check("/v1/responses/{response_id}", "get", shown)
    check("/v1/responses/{response_id}/input_items", "get", items)
    check("/v1/responses/{response_id}", "delete", deleted)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"tools": [{"type": "function", "function": TOOL}]}),
        ("/v1/responses", {"tools": [{"type": "function", **TOOL}]}),
        (
            "/v1/messages",
            {"tools": [{"name": "weather", "input_schema": TOOL["parameters"]}], "max_tokens": 64},
        ),
    ],
)
async def test_calls_are_answered_as_told(path: str, body: dict[str, Any]) -> None:
    said = (
        {"input": "Paris?"}
        if path.endswith("responses")
        else {"messages": [{"role": "user", "content": "?"}]}
    )
    async with http_client(app_with(FakeEngine("tiny", says(CALL)))) as client:
        response = await client.post(path, json={"model": "tiny", **said, **body})
    check(path, "post", response)
    assert "Paris" in response.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "logprobs": True}),
        ("/v1/completions", {"prompt": "Hello", "logprobs": 1}),
    ],
)
async def test_logprobs_are_answered_as_told(path: str, body: dict[str, Any]) -> None:
    chance = TokenLogprobs(TokenLogprob(1, "a", -0.5), (TokenLogprob(1, "a", -0.5),))
    pieces = [TokenDelta("a", (1,), logprobs=(chance,)), *says()(None)]  # type: ignore[arg-type]
    async with http_client(app_with(FakeEngine("tiny", lambda _request: pieces))) as client:
        response = await client.post(path, json={"model": "tiny", **body})
    check(path, "post", response)


async def test_an_answer_with_an_unknown_key_would_be_found() -> None:
    schema = answer_schema("/v1/models", "get")
    with pytest.raises(jsonschema_rs.ValidationError, match="surprise"):
        jsonschema_rs.validate(schema, {"object": "list", "data": [], "surprise": 1})
