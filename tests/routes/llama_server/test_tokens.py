from __future__ import annotations

from typing import Any

import pytest

from kolosal.engines.ipc.calls import Detokenize, Ranked, Render, Tokenize
from kolosal.schema import ChatPrompt, Message
from tests.fakes import FakeEngine, app_with, http_client


async def post(engine: FakeEngine, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post(path, json=body)
    return response.status_code, response.json()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
async def test_text_is_tokenised(engine: FakeEngine, path: str) -> None:
    assert await post(engine, path, {"model": "fake", "content": "ab"}) == (200, {"tokens": [97, 98]})
    assert engine.calls == [Tokenize("ab", add_special=False, parse_special=True, with_pieces=False)]


async def test_special_tokens_are_treated_as_asked(engine: FakeEngine) -> None:
    await post(engine, "/tokenize", {"content": "a", "add_special": True, "parse_special": False})

    assert engine.calls == [Tokenize("a", add_special=True, parse_special=False, with_pieces=False)]


async def test_piece_is_text_or_bytes(engine: FakeEngine) -> None:
    _, answer = await post(engine, "/tokenize", {"content": "aé", "with_pieces": True})

    assert answer == {
        "tokens": [{"id": 97, "piece": "a"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}]
    }


async def test_long_text_has_its_pieces(engine: FakeEngine) -> None:
    _, answer = await post(engine, "/tokenize", {"content": "a" * 10_000, "with_pieces": True})

    assert answer == {"tokens": [{"id": 97, "piece": "a"}] * 10_000}


async def test_no_text_has_no_tokens(engine: FakeEngine) -> None:
    assert await post(engine, "/tokenize", {"content": ""}) == (200, {"tokens": []})


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_tokens_are_written_out(engine: FakeEngine, path: str) -> None:
    assert await post(engine, path, {"tokens": [97, 98]}) == (200, {"content": "ab", "prompt": "ab"})
    assert engine.calls == [Detokenize((97, 98))]


@pytest.mark.parametrize("path", ["/apply-template", "/v1/apply-template"])
async def test_chat_is_rendered(engine: FakeEngine, path: str) -> None:
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}

    assert await post(engine, path, body) == (200, {"prompt": "Be brief.|Hi"})
    assert engine.calls == [Render(ChatPrompt((Message("system", "Be brief."), Message("user", "Hi"))))]


async def test_tools_are_rendered_too(engine: FakeEngine) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    await post(engine, "/apply-template", {"messages": [{"role": "user", "content": "Hi"}], "tools": [tool]})

    (call,) = engine.calls
    assert isinstance(call, Render)
    assert isinstance(call.prompt, ChatPrompt)
    assert [tool.name for tool in call.prompt.tool_use.tools] == ["look"]


async def test_one_of_several_engines_must_be_named() -> None:
    engines = FakeEngine("a"), FakeEngine("b")
    async with http_client(app_with(*engines)) as client:
        unnamed = await client.post("/tokenize", json={"content": "x"})
        named = await client.post("/tokenize", json={"content": "x", "model": "b"})

    assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "model")
    assert named.status_code == 200
    assert not engines[0].calls


async def test_default_engine_need_not_be_named() -> None:
    engines = FakeEngine("a"), FakeEngine("b")
    async with http_client(app_with(*engines, default_engine="b")) as client:
        response = await client.post("/tokenize", json={"content": "x"})

    assert response.status_code == 200
    assert engines[1].calls


async def test_without_an_engine_there_is_none_to_ask() -> None:
    async with http_client(app_with()) as client:
        response = await client.post("/tokenize", json={"content": "x"})

    assert response.status_code == 404


async def test_answer_to_another_question_is_our_fault(engine: FakeEngine) -> None:
    engine.answer = lambda _: Ranked((), 0)
    status, answer = await post(engine, "/tokenize", {"content": "x"})

    assert (status, answer["error"]["code"]) == (500, "internal_error")
