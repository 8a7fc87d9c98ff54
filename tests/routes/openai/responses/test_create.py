"""`POST /v1/responses`: what a request becomes, and whole responses key by key."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openai.types.responses import Response

from kolosal.errors import EngineDied
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    Grammar,
    GrammarKind,
    Message,
    TokenDelta,
    TokenLogprob,
    TokenLogprobs,
    Tool,
    ToolCall,
    ToolMode,
    ToolUse,
    Usage,
)
from tests.fakes import FakeEngine, says
from tests.routes.openai.responses.asking import CALL, HELLO, WEATHER, ask, client_of, create

WEATHER_TOOL = Tool(
    "weather", WEATHER["description"], WEATHER["parameters"], "tools.0.parameters", strict=True
)


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
async def test_a_whole_response_has_exactly_these_keys(path: str) -> None:
    async with client_of(FakeEngine(script=says("Hel", "lo é", usage=Usage(7, 2, 3)))) as client:
        response = await client.post(path, json=HELLO)
    assert response.status_code == 200
    body = response.json()
    Response.model_validate(body, strict=True)
    assert set(Response.model_fields) <= set(body)
    assert re.fullmatch(r"resp_[0-9a-f]{48}", body["id"])
    assert body["completed_at"] >= body["created_at"] > 1_700_000_000
    assert (body["object"], body["model"], body["status"]) == ("response", "fake", "completed")
    [message] = body["output"]
    assert re.fullmatch(r"msg_[0-9a-f]{48}", message.pop("id"))
    assert message == {
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hello é", "annotations": [], "logprobs": []}],
    }
    assert body["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
    }


async def test_a_response_repeats_what_was_asked_for() -> None:
    asked: dict[str, Any] = {
        "instructions": "Be brief", "metadata": {"a": "b"}, "max_output_tokens": 9, "max_tool_calls": 2,
        "temperature": 0.5, "top_p": 0.75, "top_logprobs": 2, "tools": [WEATHER], "tool_choice": "none",
        "parallel_tool_calls": False, "store": False, "user": "u", "safety_identifier": "s",
        "prompt_cache_key": "k", "prompt_cache_retention": "24h", "truncation": "disabled",
    }  # fmt: skip
    _, body = await ask(FakeEngine(script=says("a")), **asked)
    assert {name: body[name] for name in asked} == asked


async def test_the_request_reaches_the_engine() -> None:
    engine = FakeEngine(script=says("a"))
    status, _ = await ask(
        engine, instructions="Be brief", temperature=0, top_p=0.5, max_output_tokens=5,
        reasoning={"effort": "low", "summary": "auto"}, text={"format": {"type": "text"}, "verbosity": "medium"},
        top_k=7, seed=5, presence_penalty=1.5, priority=3, cache_prompt=False,
        chat_template_kwargs={"enable_thinking": False}, top_logprobs=3, service_tier="auto", stream_options={"include_obfuscation": False}, made_up=1,
        background=False, conversation=None, prompt_cache_options={"mode": "implicit", "ttl": "30m"},
    )  # fmt: skip
    assert status == 200
    [request] = engine.requests
    assert request.prompt == ChatPrompt(
        (Message("system", "Be brief"), Message("user", "Hello")),
        template_kwargs={"reasoning_effort": "low", "enable_thinking": False},
    )
    assert (request.priority, request.use_cache) == (3, False)
    sampling = request.sampling
    assert (sampling.top_k, sampling.seed, sampling.presence_penalty) == (7, 5, 1.5)
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0, 0.5, 5)
    assert sampling.logprobs == 3
    assert request.grammar is None


async def test_without_a_bound_a_response_may_fill_the_context() -> None:
    engine = FakeEngine(script=says("a"))
    await ask(engine)
    assert engine.requests[0].sampling.max_tokens is None
    assert engine.requests[0].sampling.logprobs is None


async def test_items_become_turns() -> None:
    engine = FakeEngine(script=says("a"))
    status, body = await ask(
        engine,
        input=[
            {"role": "developer", "content": "Be kind"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Let me see", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'},
            {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": ""},
            {"type": "function_call_output", "call_id": "call_1", "output": "Sun"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "Rain"}]},
            {"role": "assistant", "content": "Both"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
            {"role": "user", "content": "Thanks"},
        ],
    )  # fmt: skip
    assert status == 200, body
    assert isinstance(engine.requests[0].prompt, ChatPrompt)
    calls = (ToolCall("call_1", "weather", '{"city":"Rome"}'), ToolCall("call_2", "weather", "{}"))
    assert engine.requests[0].prompt.messages == (
        Message("developer", "Be kind"),
        Message("user", "a\nb"),
        Message("assistant", "Let me see", tool_calls=calls, thinking="Hm"),
        Message("tool", "Sun", "weather", tool_call_id="call_1"),
        Message("tool", "Rain", "weather", tool_call_id="call_2"),
        Message("assistant", "Both"),
        Message("assistant", "No"),
        Message("user", "Thanks"),
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ToolUse((WEATHER_TOOL,))),
        ({"tool_choice": "auto"}, ToolUse((WEATHER_TOOL,))),
        ({"tool_choice": "none"}, ToolUse((WEATHER_TOOL,), ToolMode.NONE)),
        ({"tool_choice": "required"}, ToolUse((WEATHER_TOOL,), ToolMode.REQUIRED)),
        ({"parallel_tool_calls": False}, ToolUse((WEATHER_TOOL,), parallel=False)),
        (
            {"tool_choice": {"type": "function", "name": "weather"}},
            ToolUse((WEATHER_TOOL,), ToolMode.REQUIRED, ("weather",), parallel=False),
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]}},
            ToolUse((WEATHER_TOOL,), ToolMode.AUTO, ("weather",)),
        ),
    ],
)  # fmt: skip
async def test_tools_reach_the_engine(fields: dict[str, Any], expected: ToolUse) -> None:
    engine = FakeEngine(script=says("a"))
    status, body = await ask(engine, tools=[WEATHER], **fields)
    assert status == 200, body
    assert isinstance(engine.requests[0].prompt, ChatPrompt)
    assert engine.requests[0].prompt.tool_use == expected
    assert body["tool_choice"] == fields.get("tool_choice", "auto")


@pytest.mark.parametrize(
    ("form", "source"),
    [
        ({"type": "json_object"}, '{"type":"object"}'),
        ({"type": "json_schema", "name": "n", "schema": {"type": "array"}, "strict": True}, '{"type":"array"}'),
    ],
)  # fmt: skip
async def test_a_format_becomes_a_grammar(form: dict[str, Any], source: str) -> None:
    engine = FakeEngine(script=says("[]"))
    _, body = await ask(engine, text={"format": form})
    grammar = engine.requests[0].grammar
    assert isinstance(grammar, Grammar)
    assert (grammar.kind, grammar.source) == (GrammarKind.JSON_SCHEMA, source)
    assert body["text"] == {"format": form, "verbosity": "medium"}


async def test_a_call_is_an_item_of_its_own() -> None:
    _, body = await ask(FakeEngine(script=says(*CALL)), tools=[WEATHER])
    Response.model_validate(body, strict=True)
    [call] = body["output"]
    assert re.fullmatch(r"fc_[0-9a-f]{48}", call.pop("id"))
    assert call.pop("call_id")
    assert call == {
        "type": "function_call",
        "name": "weather",
        "arguments": '{"city": "Paris"}',
        "status": "completed",
    }
    assert body["status"] == "completed"


async def test_an_answer_that_was_cut_off_says_why() -> None:
    _, body = await ask(FakeEngine(script=says("Hel", finish=FinishReason.LENGTH)))
    assert (body["status"], body["completed_at"]) == ("incomplete", None)
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["output"][0]["status"] == "incomplete"


async def test_an_answer_without_any_text_is_an_empty_message() -> None:
    _, body = await ask(FakeEngine(script=says()))
    assert [part["text"] for part in body["output"][0]["content"]] == [""]


async def test_logprobs_come_where_they_are_asked_for() -> None:
    engine = FakeEngine(script=lambda _: [
        TokenDelta("", (1,), logprobs=(TokenLogprobs(TokenLogprob(1, "\xc3", -1.0)),)),
        TokenDelta("é", (2,), logprobs=(TokenLogprobs(TokenLogprob(2, "\xa9", -0.5), (TokenLogprob(3, "x", -2.0),)),)),
        TokenDelta("", (), FinishReason.STOP, Usage(3, 2)),
    ])  # fmt: skip
    _, body = await ask(engine, include=["message.output_text.logprobs"])
    assert engine.requests[0].sampling.logprobs == 0
    [part] = body["output"][0]["content"]
    assert part["logprobs"] == [
        {"token": "\ufffd", "bytes": [0xC3], "logprob": -1.0, "top_logprobs": []},
        {
            "token": "\ufffd",
            "bytes": [0xA9],
            "logprob": -0.5,
            "top_logprobs": [{"token": "x", "bytes": [120], "logprob": -2.0}],
        },
    ]


async def test_where_there_are_several_engines_a_model_must_be_named() -> None:
    async with client_of(FakeEngine("a"), FakeEngine("b")) as client:
        response = await client.post("/v1/responses", json={"input": "Hello"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "model")


async def test_a_generation_that_fails_is_a_status_and_is_not_kept() -> None:
    engine = FakeEngine(script=lambda _: [TokenDelta("a"), EngineDied("gone")])
    status, body = await ask(engine)
    assert (status, body["error"]["code"]) == (503, "engine_died")


async def test_a_client_may_bring_a_conversation_that_it_keeps_itself() -> None:
    engine = FakeEngine(script=says("Hello"))
    async with client_of(engine) as client:
        first = await create(client, store=False)
        assert (await client.get(f"/v1/responses/{first['id']}")).status_code == 404
        again = [{"role": "user", "content": "Hello"}, *first["output"], {"role": "user", "content": "More"}]
        await create(client, input=again, store=False)
    assert isinstance(engine.requests[1].prompt, ChatPrompt)
    assert [(m.role, m.content) for m in engine.requests[1].prompt.messages] == [
        ("user", "Hello"),
        ("assistant", "Hello"),
        ("user", "More"),
    ]
