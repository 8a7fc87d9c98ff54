"""What a chat request means to an engine."""

from __future__ import annotations

from typing import Any

import pytest

from kolosal.engines.ipc.calls import Call, CallResult, Render, Rendered
from kolosal.errors import ContextLengthExceeded, KolosalError
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    Grammar,
    GrammarKind,
    Message,
    TokenDelta,
    TokenLogprob,
    TokenLogprobs,
    ToolCall,
    Usage,
)
from tests.fakes import FakeEngine, plain_answer, says
from tests.routes.ollama.asking import (
    CALL,
    HELLO,
    WEATHER,
    chat,
    chat_prompt,
    generate,
    lines,
    loaded_engine,
    refused,
)

USE = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}


async def prompt_of(*messages: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    engine = FakeEngine(script=says("a"))
    await chat(engine, messages=list(messages), **fields)
    return chat_prompt(engine).messages


async def test_turns_reach_the_engine() -> None:
    turns = await prompt_of(
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Hello", "images": []},
        {"role": "assistant", "content": "Hi", "thinking": "Hm", "images": None},
        {"role": "user"},
    )
    assert turns == (
        Message("system", "Be brief"),
        Message("user", "Hello"),
        Message("assistant", "Hi", thinking="Hm"),
        Message("user", ""),
    )


async def test_results_find_their_calls_without_ids() -> None:
    other = {"function": {"name": "now"}}
    turns = await prompt_of(
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [USE, other, USE, USE]},
        {"role": "tool", "content": "12:00", "tool_name": "now"},
        {"role": "tool", "content": "rain", "tool_name": "weather"},
        {"role": "tool", "content": "snow"},
        {"role": "tool", "content": "lost", "tool_name": "somebody"},
    )
    calls = turns[1].tool_calls
    assert [(call.name, call.arguments) for call in calls][:2] == [
        ("weather", '{"city":"Oslo"}'),
        ("now", "{}"),
    ]
    assert len({call.id for call in calls}) == 4
    results = [(turn.tool_call_id, turn.name, turn.content) for turn in turns[2:]]
    assert results == [
        (calls[1].id, "now", "12:00"),
        (calls[0].id, "weather", "rain"),
        (calls[2].id, "weather", "snow"),
        (None, "somebody", "lost"),
    ]


async def test_ids_are_kept() -> None:
    turns = await prompt_of(
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [{"id": "a", **USE}, {"id": "b", **USE}]},
        {"role": "tool", "content": "rain", "tool_call_id": "b"},
        {"role": "tool", "content": "?", "tool_call_id": "c"},
    )
    assert turns[1].tool_calls[0] == ToolCall("a", "weather", '{"city":"Oslo"}')
    assert [(turn.tool_call_id, turn.name) for turn in turns[2:]] == [("b", "weather"), ("c", None)]


@pytest.mark.parametrize(
    ("last", "continues"),
    [
        ({"role": "user", "content": "a"}, False),
        ({"role": "assistant", "content": "The capital"}, True),
        ({"role": "assistant", "tool_calls": [USE]}, False),
    ],
)
async def test_a_last_turn_of_the_assistant_is_continued(last: dict[str, Any], continues: bool) -> None:
    engine = FakeEngine(script=says("a"))
    await chat(engine, messages=[*HELLO, last])
    assert chat_prompt(engine).continues is continues


@pytest.mark.parametrize(
    ("think", "kwargs"),
    [
        (None, {}), (True, {"enable_thinking": True}), (False, {"enable_thinking": False}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)  # fmt: skip
async def test_think_goes_to_the_template(think: object, kwargs: dict[str, object]) -> None:
    engine = loaded_engine(says("<think>", "Hm.", "</think>", "Yes."), thinking_tags=("<think>", "</think>"))
    whole = await chat(engine, think=think)
    assert chat_prompt(engine).template_kwargs == kwargs
    assert whole["message"] == {"role": "assistant", "content": "Yes.", "thinking": "Hm."}


async def test_a_model_that_cannot_is_not_asked() -> None:
    engine = loaded_engine(says("a"))
    assert await refused(engine, "/api/chat", messages=HELLO, think=True) == (
        400,
        '"fake" does not support thinking',
    )
    engine = loaded_engine(says("a"), can_generate=False)
    assert await refused(engine, "/api/chat", messages=HELLO) == (400, '"fake" does not support chat')
    assert await refused(engine, "/api/generate", prompt="a") == (400, '"fake" does not support generate')


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("json", '{"type":"object"}'),
        (
            {"type": "object", "title": "T", "properties": {"a": {"type": "integer"}}},
            '{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false}',
        ),
    ],
)
async def test_a_format_is_a_grammar(given: object, source: str) -> None:
    engine = FakeEngine(script=says("{}"))
    await chat(engine, format=given)
    assert engine.requests[0].grammar == Grammar(GrammarKind.JSON_SCHEMA, source, "format")


@pytest.mark.parametrize("given", ["", None])
async def test_no_format_is_text(given: object) -> None:
    engine = FakeEngine(script=says("a"))
    await chat(engine, format=given)
    assert engine.requests[0].grammar is None


async def test_text_that_only_looks_like_a_call_stays_text() -> None:
    whole = await chat(FakeEngine(script=says(CALL)))
    assert whole["message"]["content"] == CALL
    assert "tool_calls" not in whole["message"]


async def test_a_turn_cut_off_within_a_call_has_no_call() -> None:
    engine = FakeEngine(script=says(CALL[:50], finish=FinishReason.LENGTH))
    whole = await chat(engine, tools=[WEATHER])
    assert (whole["done_reason"], "tool_calls" in whole["message"]) == ("length", False)
    engine = FakeEngine(script=says(CALL[:50], finish=FinishReason.LENGTH))
    *_, last = await lines(engine, "/api/chat", tools=[WEATHER], messages=HELLO)
    assert last["done_reason"] == "length"


async def test_many_log_probabilities_are_written_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kolosal.http.large.THREAD_ABOVE_BYTES", 1)
    chances = tuple(TokenLogprobs(TokenLogprob(1, piece, -0.5)) for piece in "abc")
    deltas = [TokenDelta("abc", (1, 2, 3), FinishReason.STOP, Usage(1, 3), chances)]
    whole = await chat(FakeEngine(script=lambda _: deltas), logprobs=True)
    assert [entry["token"] for entry in whole["logprobs"]] == ["a", "b", "c"]


# --- truncate ---


def _window(engine: FakeEngine, n_ctx: int) -> None:
    """Give an engine of bytes a context window that is kept."""

    def answer(call: Call) -> CallResult | KolosalError:
        answered = plain_answer(call)
        if isinstance(call, Render) and isinstance(answered, Rendered) and answered.n_tokens > 2 * n_ctx:
            return ContextLengthExceeded("far too long")  # as a worker says without counting
        return answered

    def script(request: GenerateRequest) -> list[TokenDelta | KolosalError]:
        rendered = plain_answer(Render(request.prompt))
        assert isinstance(rendered, Rendered)
        if rendered.n_tokens >= min(n_ctx, request.max_context or n_ctx):
            return [ContextLengthExceeded("too long")]
        return [TokenDelta("a", (), FinishReason.STOP, Usage(1, 1))]

    engine.answer, engine.script = answer, script


LONG: list[dict[str, Any]] = [
    {"role": "system", "content": "sys"},
    {"role": "user", "content": "x" * 200},
    {"role": "assistant", "content": "y" * 20, "tool_calls": [USE]},
    {"role": "tool", "content": "z" * 10},
    {"role": "assistant", "content": "w" * 10},
    {"role": "user", "content": "end"},
]


@pytest.mark.parametrize(
    ("n_ctx", "kept"),
    [(400, 6), (60, 5), (50, 3), (20, 3), (12, 2), (9, 2)],
)  # fmt: skip
async def test_a_chat_that_is_too_long_loses_its_oldest_turns(n_ctx: int, kept: int) -> None:
    engine = loaded_engine(n_ctx=n_ctx)
    _window(engine, n_ctx)
    assert (await chat(engine, messages=LONG))["message"]["content"] == "a"
    prompt = engine.requests[-1].prompt
    contents = [message.content for message in prompt.messages]  # type: ignore[union-attr]
    assert len(contents) == kept
    assert (contents[0], contents[-1]) == ("sys", "end")


@pytest.mark.parametrize("fields", [{"truncate": False}, {"messages": LONG[:2]}])
async def test_what_cannot_or_may_not_be_shortened_is_refused(fields: dict[str, Any]) -> None:
    engine = loaded_engine(n_ctx=30)
    _window(engine, 30)
    status, error = await refused(engine, "/api/chat", **{"messages": LONG} | fields)
    assert (status, error) == (400, "too long")


@pytest.mark.parametrize(
    ("num_ctx", "kept", "window"),
    [
        (400, 6, 400), (2000, 6, 2000), (60, 5, 60), (12, 2, 12), (None, 6, None), (-1, 6, None), (0, 6, None), (10**7, 6, None),
    ],
)  # fmt: skip
async def test_num_ctx_is_a_window_of_its_own(num_ctx: int | None, kept: int, window: int | None) -> None:
    engine = loaded_engine(n_ctx=1000)
    _window(engine, 1000)
    assert (await chat(engine, messages=LONG, options={"num_ctx": num_ctx}))["message"]["content"] == "a"
    last = engine.requests[-1]
    assert isinstance(last.prompt, ChatPrompt)
    assert (len(last.prompt.messages), last.max_context) == (kept, window)


async def test_a_last_turn_that_is_longer_than_num_ctx_gets_the_engines_window() -> None:
    long_turn = [*LONG[:-1], {"role": "user", "content": "x" * 100}]
    for n_ctx, kept in ((1000, 6), (200, 5), (110, 2)):
        engine = loaded_engine(n_ctx=n_ctx)
        _window(engine, n_ctx)
        await chat(engine, messages=long_turn, options={"num_ctx": 40})
        last = engine.requests[-1]
        assert isinstance(last.prompt, ChatPrompt)
        assert (len(last.prompt.messages), last.max_context) == (kept, None)


async def test_num_ctx_is_kept_to_where_nothing_may_be_cut() -> None:
    engine = loaded_engine(n_ctx=1000)
    _window(engine, 1000)
    fields: dict[str, Any] = {"truncate": False, "options": {"num_ctx": 40}}
    assert await refused(engine, "/api/chat", messages=LONG, **fields) == (400, "too long")
    assert await refused(engine, "/api/generate", prompt="x" * 50, **fields) == (400, "too long")


async def test_a_prompt_that_is_longer_than_num_ctx_gets_the_engines_window() -> None:
    engine = loaded_engine(n_ctx=1000)
    _window(engine, 1000)
    assert (await generate(engine, prompt="x" * 50, options={"num_ctx": 40}))["response"] == "a"
    assert [request.max_context for request in engine.requests] == [40, None]
    status, _ = await refused(engine, "/api/generate", prompt="x" * 1000, options={"num_ctx": 40})
    assert status == 400
