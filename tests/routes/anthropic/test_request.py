"""From the body of a Messages request to what an engine gets."""

from __future__ import annotations

from typing import Any, get_type_hints

import orjson
import pytest
from anthropic.types.beta.message_create_params import (
    MessageCreateParamsNonStreaming as BetaMessageCreateParamsNonStreaming,
)
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st

from kolosal.errors import ClientError
from kolosal.http.decode import decode_body
from kolosal.routes.anthropic.body import IGNORED_FIELDS, REFUSED_FIELDS, CountBody, MessagesBody
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    GenerateRequest,
    Grammar,
    GrammarKind,
    Message,
    Tool,
    ToolCall,
    ToolMode,
    ToolUse,
)
from tests.routes.anthropic.messages import HELLO, WEATHER

WEATHER_TOOL = Tool("weather", "The weather of a city", WEATHER["input_schema"], "tools.0.input_schema")


def request(**fields: Any) -> GenerateRequest:
    return decode_body(orjson.dumps(HELLO | fields), MessagesBody).to_request()


def prompt(**fields: Any) -> ChatPrompt:
    made = request(**fields).prompt
    assert isinstance(made, ChatPrompt)
    return made


def messages(*given_messages: tuple[str, Any], **fields: Any) -> tuple[Message, ...]:
    return prompt(messages=[{"role": role, "content": c} for role, c in given_messages], **fields).messages


def test_the_least_request_gets_anthropics_defaults() -> None:
    assert request() == GenerateRequest(
        ChatPrompt((Message("user", "Hello"),)), SamplingParams(temperature=1, top_k=0, max_tokens=64)
    )


def test_null_is_as_good_as_leaving_a_field_out() -> None:
    names = [*(MessagesBody.model_fields.keys() - HELLO.keys()), "container", "metadata", "made_up"]
    assert request(**dict.fromkeys(names)) == request()


def test_sampling_reaches_the_engine() -> None:
    sampling = request(temperature=0, top_p=0.5, top_k=7, stop_sequences=["a", "b"], max_tokens=0).sampling
    assert sampling == SamplingParams(temperature=0, top_p=0.5, top_k=7, stop=("a", "b"), max_tokens=0)


def test_system_is_the_first_turn() -> None:
    hello = Message("user", "Hello")
    assert prompt(system="Be brief").messages == (Message("system", "Be brief"), hello)
    blocks = [
        {"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "brief"},
    ]
    assert prompt(system=blocks).messages == (Message("system", "Be\nbrief"), hello)
    assert prompt(system="").messages == (hello,)


def test_neighbours_of_one_role_become_one_turn() -> None:
    assert messages(
        ("user", "a"), ("user", [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]),
        ("assistant", "d"), ("assistant", [{"type": "text", "text": "e"}]), ("user", "f"), ("system", "g"), ("user", "h"),
    ) == (
        Message("user", "a\nb\nc"), Message("assistant", "d\ne"), Message("user", "f"), Message("system", "g"),
        Message("user", "h"),
    )  # fmt: skip


def test_a_last_turn_of_the_assistant_is_continued() -> None:
    asked = [{"role": "user", "content": "The sun?"}, {"role": "assistant", "content": "It is ("}]
    assert prompt(messages=asked).continues
    assert not prompt().continues


def test_calls_results_and_thoughts_become_turns() -> None:
    made = messages(
        ("user", "Oslo?"),
        (
            "assistant",
            [
                {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}, {"type": "text", "text": "clock"}],
                },
                {"type": "text", "text": "So?"},
            ],
        ),
    )
    assert made == (
        Message("user", "Oslo?"),
        Message(
            "assistant",
            "I look.",
            tool_calls=(ToolCall("toolu_1", "weather", '{"city":"Oslo"}'), ToolCall("toolu_2", "now", "{}")),
            thinking="Hm.",
        ),
        Message("tool", "Rain", "weather", tool_call_id="toolu_1"),
        Message("tool", "Error: no\nclock", "now", tool_call_id="toolu_2"),
        Message("user", "So?"),
    )


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({}, ""), ({"content": []}, ""), ({"is_error": True}, "Error"), ({"content": "x", "is_error": False}, "x"),
        ({"content": [{"type": "tool_reference", "tool_name": "weather"}]}, "weather"),
    ],
)  # fmt: skip
def test_every_form_of_a_result_is_text(result: dict[str, Any], text: str) -> None:
    made = messages(
        ("assistant", [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]),
        ("user", [{"type": "tool_result", "tool_use_id": "1", **result}]),
    )
    assert made[-1].content == text


@pytest.mark.parametrize(
    ("choice", "use"),
    [
        (None, ToolUse((WEATHER_TOOL,))),
        ({"type": "auto"}, ToolUse((WEATHER_TOOL,))),
        ({"type": "none"}, ToolUse((WEATHER_TOOL,), ToolMode.NONE)),
        ({"type": "any"}, ToolUse((WEATHER_TOOL,), ToolMode.REQUIRED)),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            ToolUse((WEATHER_TOOL,), ToolMode.REQUIRED, parallel=False),
        ),
        (
            {"type": "tool", "name": "weather"},
            ToolUse((WEATHER_TOOL,), ToolMode.REQUIRED, only=("weather",), parallel=False),
        ),
    ],
)
def test_tools_and_their_choice(choice: dict[str, Any] | None, use: ToolUse) -> None:
    assert (
        prompt(tools=[WEATHER | {"cache_control": {"type": "ephemeral"}}], tool_choice=choice).tool_use == use
    )


@pytest.mark.parametrize("n_tools", [140, 512])
def test_tools_140(n_tools: int) -> None:
    """Several servers of the Model Context Protocol together have more than 128 tools."""
    tools = [{**WEATHER, "name": f"weather_{number}"} for number in range(n_tools)]
    assert len(prompt(tools=tools).tool_use.tools) == n_tools


def test_a_tools_examples_are_part_of_its_description() -> None:
    tool = WEATHER | {"type": "custom", "input_examples": [{"city": "Oslo"}], "allowed_callers": ["direct"]}
    [made] = prompt(tools=[tool]).tool_use.tools
    assert made.description == 'The weather of a city\nExample input: {"city":"Oslo"}'
    assert prompt(tools=[{"name": "now", "input_schema": {}}]).tool_use.tools == (
        Tool("now", "", {"type": "object"}, "tools.0.input_schema"),
    )


@pytest.mark.parametrize(
    ("fields", "kwargs"),
    [
        ({}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"enable_thinking": True}),
        ({"thinking": {"type": "adaptive"}}, {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "between_tools"}}, {"enable_thinking": False}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
    ],
)
def test_thinking_and_effort_are_told_to_the_template(fields: dict[str, Any], kwargs: dict[str, Any]) -> None:
    assert prompt(**fields).template_kwargs == kwargs


@pytest.mark.parametrize(
    ("thinking", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, 2048), ({"type": "enabled", "budget_tokens": 2**62}, 1_000_000),
        ({"type": "adaptive", "budget_tokens": 2048}, None), (None, None),
    ],
)  # fmt: skip
def test_budget_tokens_bound_the_thoughts(thinking: dict[str, Any] | None, budget: int | None) -> None:
    assert request(thinking=thinking).sampling.reasoning_budget == budget


@pytest.mark.parametrize(("field", "outer"), [("output_format", None), ("format", "output_config")])
def test_an_output_format_is_a_grammar(field: str, outer: str | None) -> None:
    value: dict[str, Any] = {field: {"type": "json_schema", "schema": {"type": "object"}}}
    made = request(**(value if outer is None else {outer: value}))
    path = field if outer is None else f"{outer}.{field}"
    assert made.grammar == Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}', f"{path}.schema")


@pytest.mark.parametrize(
    ("edit", "thoughts"),
    [
        ({"keep": "all"}, ["1", "2"]), ({"keep": {"type": "all"}}, ["1", "2"]), ({}, [None, "2"]),
        ({"keep": {"type": "thinking_turns", "value": 1}}, [None, "2"]),
        ({"keep": {"type": "thinking_turns", "value": 5}}, ["1", "2"]),
    ],
)  # fmt: skip
def test_earlier_thoughts_are_cleared_where_asked_for(
    edit: dict[str, Any], thoughts: list[str | None]
) -> None:
    thought = [[{"type": "thinking", "thinking": t}, {"type": "text", "text": "x"}] for t in ("1", "2")]
    made = messages(
        ("assistant", thought[0]), ("user", "a"), ("assistant", thought[1]), ("user", "b"),
        context_management={"edits": [{"type": "clear_thinking_20251015", **edit}]},
    )  # fmt: skip
    assert [turn.thinking for turn in made if turn.role == "assistant"] == thoughts


def test_counting_takes_what_a_message_takes() -> None:
    fields = HELLO | {"tools": [WEATHER], "temperature": 0.5, "stream": True, "metadata": {"user_id": "x"}}
    counted = decode_body(orjson.dumps(fields), CountBody).to_prompt()
    assert counted == prompt(tools=[WEATHER])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["text", "thinking", "tool_use", "tool_result", "image", "redacted_thinking", "x"])
NAMES = ["text", "thinking", "id", "name", "input", "tool_use_id", "content", "is_error"]
BLOCKS = st.fixed_dictionaries({"type": KINDS | JSON}, optional=dict.fromkeys(NAMES, JSON))


@given(
    st.lists(
        st.fixed_dictionaries({
            "role": st.sampled_from(["user", "assistant", "system"]) | JSON,
            "content": st.lists(BLOCKS, max_size=4) | JSON,
        }),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from([*MessagesBody.model_fields, "container", "odd"]), JSON, max_size=3),
)  # fmt: skip
def test_whatever_comes_is_a_request_or_an_error_for_the_client(
    given_messages: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    body = HELLO | {"messages": given_messages} | fields
    try:
        made = decode_body(orjson.dumps(body), MessagesBody).to_request()
    except ClientError:
        return
    assert isinstance(made.prompt, ChatPrompt)
    assert made.prompt.messages


@pytest.mark.parametrize("official", [MessageCreateParamsNonStreaming, BetaMessageCreateParamsNonStreaming])
def test_every_field_of_the_official_client_is_known(official: type) -> None:
    """A new version of the client that has a new field fails here until we have an opinion about it."""
    in_headers = {"betas", "user_profile_id", "workspace_id"}
    ours = MessagesBody.model_fields.keys() | IGNORED_FIELDS | REFUSED_FIELDS.keys()
    assert get_type_hints(official).keys() - in_headers <= ours
