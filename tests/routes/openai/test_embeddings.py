from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from kolosal.engines.ipc.calls import MAX_INPUTS, Call, CallResult, Embed, Embedded
from kolosal.errors import InvalidRequest, KolosalError, UnsupportedFeature
from kolosal.routes.openai.embeddings import EmbeddingBody
from kolosal.schema import TextPrompt, TokensPrompt
from tests.fakes import FakeEngine, app_with, http_client


def encoded(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def numbered(call: Call) -> CallResult | KolosalError:
    """A vector for each input that says which one it is in the request."""
    assert isinstance(call, Embed)
    count = len(call.inputs)
    return Embedded(tuple(encoded(call.first + index, 0.5) for index in range(count)), (3,) * count)


async def embed(
    engine: FakeEngine, path: str = "/v1/embeddings", **fields: Any
) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post(path, json={"model": "fake", "input": "Hello"} | fields)
    return response.status_code, response.json()


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.answer = numbered
    return engine


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
async def test_text_gets_its_vector(engine: FakeEngine, path: str) -> None:
    assert await embed(engine, path) == (
        200,
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.0, 0.5]}],
            "model": "fake",
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        },
    )


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a", (TextPrompt("a"),)),
        (["a", "b"], (TextPrompt("a"), TextPrompt("b"))),
        ([1, 2], (TokensPrompt((1, 2)),)),
        ([[1, 2], [3]], (TokensPrompt((1, 2)), TokensPrompt((3,)))),
    ],
)
async def test_every_form_of_input_is_understood(
    engine: FakeEngine, given: object, inputs: tuple[object]
) -> None:
    status, answer = await embed(engine, input=given)

    assert status == 200
    assert engine.calls == [Embed(inputs)]  # type: ignore[arg-type]
    assert len(answer["data"]) == len(inputs)


async def test_vectors_have_the_order_of_their_inputs(engine: FakeEngine) -> None:
    _, answer = await embed(engine, input=["x" * 1000] * MAX_INPUTS)

    assert len(engine.calls) > 1, "the request was not split, so this test shows nothing"
    assert [row["index"] for row in answer["data"]] == [*range(MAX_INPUTS)]
    assert [row["embedding"][0] for row in answer["data"]] == [*range(MAX_INPUTS)]
    assert answer["usage"]["total_tokens"] == 3 * MAX_INPUTS


async def test_large_vectors_are_asked_for_a_few_at_a_time(engine: FakeEngine) -> None:
    await embed(engine, input=["x"] * 40, dimensions=65_536)

    assert [len(call.inputs) for call in engine.calls if isinstance(call, Embed)] == [16, 16, 8]


async def test_large_answer_is_whole(engine: FakeEngine) -> None:
    vector = [0.5] * 4096
    engine.answer = lambda _: Embedded((encoded(*vector),) * 20, (1,) * 20)
    _, answer = await embed(engine, input=["x"] * 20)

    assert [row["embedding"] for row in answer["data"]] == [vector] * 20


async def test_base64_is_the_same_vector(engine: FakeEngine) -> None:
    _, answer = await embed(engine, encoding_format="base64")

    assert answer["data"][0]["embedding"] == encoded(0.0, 0.5)


async def test_dimensions_are_passed_on(engine: FakeEngine) -> None:
    await embed(engine, dimensions=2)

    assert engine.calls == [Embed((TextPrompt("Hello"),), 2)]


async def test_null_is_as_good_as_leaving_a_field_out(engine: FakeEngine) -> None:
    status, _ = await embed(engine, dimensions=None, encoding_format=None, user=None)

    assert status == 200
    assert engine.calls == [Embed((TextPrompt("Hello"),))]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ["a", 1]}, "input.1"),
        ({"input": [1, "a"]}, "input.1"),
    ],
)
async def test_mixed_inputs_are_refused_by_name(
    engine: FakeEngine, fields: dict[str, Any], param: str
) -> None:
    status, answer = await embed(engine, **fields)

    assert (status, answer["error"]["param"]) == (400, param)
    assert not engine.calls


@pytest.mark.parametrize("name", EmbeddingBody.UNSUPPORTED)
async def test_what_is_not_had_is_refused(engine: FakeEngine, name: str) -> None:
    field: dict[str, Any] = {name: 1}
    status, answer = await embed(engine, **field)

    assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, name, "unsupported_feature")


async def test_missing_input_is_named(engine: FakeEngine) -> None:
    async with http_client(app_with(engine)) as client:
        response = await client.post("/v1/embeddings", json={"model": "fake"})

    assert response.json()["error"]["message"] == "Missing required fields (model, input)"


async def test_error_of_the_engine_is_the_clients(engine: FakeEngine) -> None:
    engine.answer = lambda _: InvalidRequest("dimensions must be at most 4", param="dimensions")
    status, answer = await embed(engine, dimensions=5)

    assert (status, answer["error"]["param"]) == (400, "dimensions")


async def test_model_that_makes_no_embeddings_says_so(engine: FakeEngine) -> None:
    engine.answer = lambda _: UnsupportedFeature("This model ranks documents and makes no embeddings")
    status, answer = await embed(engine)

    assert (status, answer["error"]["code"]) == (400, "unsupported_feature")
