"""Vectors, in both forms."""

from __future__ import annotations

from typing import Any

import pytest

from kolosal.engines.ipc.calls import Call, CallResult, Embed
from kolosal.engines.state import EngineState
from kolosal.errors import ContextLengthExceeded, KolosalError
from kolosal.schema import TextPrompt, TokensPrompt
from tests.fakes import FakeEngine, app_with, eventually, http_client, plain_answer
from tests.routes.ollama.asking import loaded_engine, post, refused


async def embed(engine: FakeEngine, **fields: Any) -> dict[str, Any]:
    response = await post(engine, "/api/embed", {"model": "fake", **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(("given", "count"), [("a", 1), (["a"], 1), (["a", "b", "a"], 3)])
async def test_each_text_gets_its_vector(given: object, count: int) -> None:
    answer = await embed(FakeEngine(), input=given)
    assert answer["embeddings"] == [[1.0, 0.0]] * count
    assert (answer["model"], answer["prompt_eval_count"]) == ("fake", 3 * count)
    assert answer["total_duration"] >= answer["load_duration"] >= 0


@pytest.mark.parametrize("given", ["", [], None])
async def test_without_a_text_the_model_is_loaded(given: object) -> None:
    engine = FakeEngine()
    answer = await embed(engine, input=given)
    assert (answer["embeddings"], answer["prompt_eval_count"]) == ([], 0)
    assert not engine.calls


async def test_dimensions_reach_the_engine() -> None:
    engine = FakeEngine()
    await embed(engine, input="a", dimensions=1)
    await embed(engine, input="a", dimensions=0)
    assert [call.dimensions for call in engine.calls if isinstance(call, Embed)] == [1, None]


def _of_four_tokens(call: Call) -> CallResult | KolosalError:
    if isinstance(call, Embed):
        for prompt in call.inputs:
            if len(prompt.text if isinstance(prompt, TextPrompt) else prompt.tokens) > 4:
                return ContextLengthExceeded("input.0 has too many tokens")
    return plain_answer(call)


async def test_a_long_text_is_cut_off() -> None:
    engine = loaded_engine(n_ctx=64, n_ctx_train=4)
    engine.answer = _of_four_tokens
    answer = await embed(engine, input=["ab", "abcdef"])
    assert len(answer["embeddings"]) == 2
    [*_, asked] = [call for call in engine.calls if isinstance(call, Embed)]
    assert asked.inputs == (TokensPrompt(tuple(b"ab")), TokensPrompt(tuple(b"abcd")))


async def test_unless_it_may_not_be() -> None:
    engine = loaded_engine(n_ctx=4)
    engine.answer = _of_four_tokens
    refusal = await refused(engine, "/api/embed", input="abcdef", truncate=False)
    assert refusal == (400, "input.0 has too many tokens (the input length exceeds the context length)")


async def test_the_older_form_gives_one_vector() -> None:
    async with http_client(app_with(FakeEngine())) as client:
        body = {"model": "fake", "prompt": "a"}
        assert (await client.post("/api/embeddings", json=body)).json() == {"embedding": [1.0, 0.0]}
        assert (await client.post("/api/embeddings", json={"model": "fake"})).json() == {"embedding": []}


@pytest.mark.parametrize(("path", "field"), [("/api/embed", "input"), ("/api/embeddings", "prompt")])
async def test_keep_alive_0_frees_the_model_after_the_answer(path: str, field: str) -> None:
    engine = loaded_engine()
    assert (await post(engine, path, {"model": "fake", field: "a", "keep_alive": 0})).status_code == 200
    await eventually(lambda: engine.state is EngineState.UNLOADED)


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("/api/embed", {"input": ["a", ""]}, "input.1"), ("/api/embed", {"input": "a", "keep_alive": "x"}, "keep_alive"),
        ("/api/embed", {"input": "a", "model": "x"}, "model"),
    ],
)  # fmt: skip
async def test_a_bad_value_is_named(path: str, fields: dict[str, Any], named: str) -> None:
    engine = FakeEngine()
    status, error = await refused(engine, path, **fields)
    assert (status, error.split()[0]) == (404 if named == "model" else 400, named)
    assert not engine.calls
