"""`context`: a conversation as tokens, there and back."""

from __future__ import annotations

from collections.abc import Iterable

from kolosal.engines.ipc.calls import Call, CallResult, Render, Tokenize, Tokenized
from kolosal.errors import EngineDied, KolosalError
from kolosal.schema import ChatPrompt, GenerateRequest, Message, TokenDelta, TokensPrompt
from tests.fakes import FakeEngine, plain_answer, says
from tests.routes.ollama.asking import generate, lines, loaded_engine, refused


async def test_an_answer_has_the_conversation_as_tokens() -> None:
    engine = FakeEngine(script=says("Hel", "lo"))
    whole = await generate(engine, prompt="Hi", system="Be brief")
    assert bytes(whole["context"]) == b"Be brief|Hi|Hello"
    [rendered] = [call.prompt for call in engine.calls if isinstance(call, Render)]
    assert isinstance(rendered, ChatPrompt)
    assert rendered.continues
    assert rendered.messages[-1] == Message("assistant", "Hello")
    *_, last = await lines(FakeEngine(script=says("Hel", "lo")), "/api/generate", prompt="Hi")
    assert bytes(last["context"]) == b"Hi|Hello"


async def test_a_context_stands_before_the_next_prompt() -> None:
    engine = FakeEngine(script=says("c"))
    whole = await generate(engine, prompt="b", context=[7, 8])
    assert engine.requests[0].prompt == TokensPrompt((7, 8, ord("b")))
    assert whole["context"] == [7, 8, *b"b|c"]


async def test_what_only_begins_texts_is_not_repeated() -> None:
    def answer(call: Call) -> CallResult | KolosalError:
        return Tokenized((ord("b"),), ()) if isinstance(call, Tokenize) else plain_answer(call)

    engine = FakeEngine(script=says("c"))
    engine.answer = answer
    await generate(engine, prompt="bd", context=[7, 8])
    assert engine.requests[0].prompt == TokensPrompt((7, 8, ord("d")))


async def test_an_answer_does_not_fail_for_want_of_its_context() -> None:
    engine = FakeEngine()

    def script(_request: GenerateRequest) -> Iterable[TokenDelta | KolosalError]:
        engine.answer = lambda _: EngineDied("gone")
        return says("c")(_request)

    engine.script = script
    whole = await generate(engine, prompt="b")
    assert (whole["response"], "context" in whole) == ("c", False)


async def test_a_chat_and_a_raw_prompt_have_none() -> None:
    *_, last = await lines(
        FakeEngine(script=says("a")), "/api/chat", messages=[{"role": "user", "content": "a"}]
    )
    assert "context" not in last
    assert "context" not in await generate(FakeEngine(script=says("a")), prompt="a", raw=True)


async def test_a_context_of_another_model_is_refused() -> None:
    engine = loaded_engine(says("c"), n_vocab=100)
    status, error = await refused(engine, "/api/generate", prompt="b", context=[7, 100])
    assert (status, error) == (
        400,
        "context must hold tokens of this model, which are less than 100, not 100",
    )
    assert not engine.requests


async def test_thoughts_stand_apart_after_a_context_too() -> None:
    engine = loaded_engine(says("<think>Hm.</think>Yes."), n_vocab=256, thinking_tags=("<think>", "</think>"))
    whole = await generate(engine, prompt="b", context=[7])
    assert (whole["thinking"], whole["response"]) == ("Hm.", "Yes.")
