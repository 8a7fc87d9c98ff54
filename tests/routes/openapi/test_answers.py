"""What is really answered to the examples has the keys that the document tells: all of them, and no others."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from kolosal.routes import all_routes
from kolosal.routes.openapi.document import build_document
from tests.fakes import FakeEngine, app_with, http_client, says

DOCUMENT = orjson.loads(orjson.dumps(build_document(all_routes())))


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


async def test_an_answer_with_an_unknown_key_would_be_found() -> None:
    schema = answer_schema("/v1/models", "get")
    with pytest.raises(jsonschema_rs.ValidationError, match="surprise"):
        jsonschema_rs.validate(schema, {"object": "list", "data": [], "surprise": 1})
