"""What is not a valid request, or asks for what there is not: a 400 that names the field."""

from __future__ import annotations

import contextlib
from typing import Any

import openai.types.responses.response_create_params as official
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.input_token_count_params import InputTokenCountParams

from kolosal.errors import ClientError, InvalidRequest
from kolosal.http.decode import decode_body
from kolosal.routes.openai.responses.body import ResponseBody, ResponsePromptBody
from kolosal.routes.openai.responses.input_items import ItemSources
from kolosal.routes.openai.responses.items import ContentPart, Item
from kolosal.schema import MAX_TOOLS
from tests.fakes import FakeEngine, says
from tests.routes.openai.responses.asking import WEATHER, ask

NOTHING = ItemSources(lambda _: None, lambda _: None)
USER = {"role": "user", "content": "Hello"}


def _said(text: str) -> Item:
    content: list[ContentPart] = [{"type": "input_text", "text": text}]
    return {"id": "msg", "type": "message", "role": "user", "status": "completed", "content": content}


def _message(part: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": None}, "input", "Missing required field: input"),
        ({"input": []}, "input", "input must have at least 1 item"),
        ({"input": 5}, "input", "must be a string or an array of items"),
        ({"input": [5]}, "input.0", "must be an item: an object with a role or a type"),
        ({"input": [{"type": 5}]}, "input.0", "must be an item"),
        ({"input": [{"type": "computer_call"}]}, "input.0.type", "'computer_call'"),
        ({"input": _message({"type": "input_image"})}, "input.0.content.0.type", "'input_image'"),
        ({"input": _message({"type": "input_text"})}, "input.0.content.0.text", "Missing required field"),
        ({"input": _message({"type": "refusal"})}, "input.0.content.0.refusal", "Missing required field"),
        (
            {"input": [USER, {"type": "function_call_output", "call_id": "c", "output": "x"}]},
            "input.1.call_id",
            "must be that of a complete call before it, not 'c'",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input.0.id", "no item of a kept response"),
        ({"input": [{"id": "msg_x"}]}, "input.0.id", "no item of a kept response"),
        ({"tools": [{"type": "telepathy"}]}, "tools.0.type", "'telepathy'"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tools": [{"type": "custom", "name": "c", "format": {"type": "grammar", "definition": "x"}}]}, "tools.0.format.syntax", "Missing"),
        ({"tools": [{"type": "namespace", "name": "n"}]}, "tools.0.tools", "Missing required field"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "namespace"}]}]}, "tools.0.tools.0.type", "'namespace'"),
        ({"tools": [{"type": "namespace", "name": "n" * 250, "tools": [WEATHER]}]}, "tools.0.tools.0.name", "with its namespace, not 258"),
        ({"tools": [WEATHER | {"name": "n.weather"}, {"type": "namespace", "name": "n", "tools": [WEATHER]}]}, "tools.1.tools.0", "'n.weather'"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [WEATHER | {"name": f"f{n}"} for n in range(MAX_TOOLS)]}, WEATHER]}, "tools", f"at most {MAX_TOOLS} tools"),
        ({"tools": [{"type": "function"}]}, "tools.0.name", "Missing required field"),
        ({"tools": [WEATHER, WEATHER]}, "tools.1", "'weather'"),
        ({"tools": [WEATHER | {"async": True}]}, "tools.0.async", "not supported"),
        ({"tools": [WEATHER | {"allowed_callers": ["programmatic"]}]}, "tools.0.allowed_callers", "not supported"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.name", "Missing"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "'f'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "mcp"}}, "tool_choice.type", "'mcp'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "custom", "name": "weather"}}, "tool_choice", "'weather'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}]}}, "tool_choice.tools", "none of its tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools", "Missing"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity", "must be 'low'"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "Missing"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "Missing"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode", "must be standard"),
        ({"truncation": "auto"}, "truncation", "must be disabled"),
        ({"include": ["everything"]}, "include", "'everything'"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm", "must be false"),
        ({"background": True}, "background", "not supported"),
        ({"background_options": {"completion_window": "2h"}}, "background_options", "not supported"),
        ({"conversation": "conv_1"}, "conversation", "not supported"),
        ({"prompt": {"id": "p"}}, "prompt", "not supported"),
    ],
    ids=str,
)  # fmt: skip
async def test_a_bad_field_is_named(fields: dict[str, Any], param: str, words: str) -> None:
    engine = FakeEngine(script=says("a"))
    status, body = await ask(engine, **fields)
    assert status == 400, body
    assert body["error"]["param"] == param
    assert words in body["error"]["message"]
    assert engine.requests == []


async def test_a_strict_tool_that_cannot_be_enforced_is_named() -> None:
    engine = FakeEngine(script=says("a"))
    status, body = await ask(engine, tools=[WEATHER | {"parameters": {"type": "array"}, "strict": True}])
    assert (status, body["error"]["param"]) == (400, "tools.0.parameters")
    assert body["error"]["message"].startswith('Field tools.0.parameters cannot be enforced at "/type"')


async def test_an_unknown_previous_response_has_its_own_code() -> None:
    status, body = await ask(FakeEngine(), previous_response_id="resp_x")
    assert (status, body["error"]["code"]) == (400, "previous_response_not_found")
    assert body["error"]["param"] == "previous_response_id"


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        ((_said("a"),) * 16_384, "must have at most 16384 items, but has 16385"),
        ((_said("a" * 1_000_000),) * 13, "must have at most 12582912 bytes, but has 13"),
    ],
    ids=["items", "bytes"],
)
def test_a_conversation_has_its_bounds(earlier: tuple[Item, ...], words: str) -> None:
    body = decode_body(b'{"model": "m", "input": "Hello"}', ResponseBody)
    with pytest.raises(InvalidRequest, match=words):
        body.to_items(earlier, NOTHING)


def test_no_official_field_is_dropped_silently() -> None:
    asked = set(official.ResponseCreateParamsBase.__annotations__) | {"stream"}
    assert asked - set(ResponseBody.model_fields) - set(ResponseBody.UNSUPPORTED) == set()
    counted = set(InputTokenCountParams.__annotations__)
    assert counted - set(ResponsePromptBody.model_fields) - set(ResponseBody.UNSUPPORTED) == set()


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "message", "user", "input_text", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "id", "call_id", "name", "arguments", "output"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(input=json, tools=json, tool_choice=json, text=json)
def test_whatever_comes_is_a_request_or_a_client_error(**fields: object) -> None:
    with contextlib.suppress(ClientError):
        body = decode_body(orjson.dumps({"model": "m"} | fields), ResponseBody)
        body.to_request(body.to_items((), NOTHING))
