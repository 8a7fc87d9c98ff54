"""The official Anthropic client against the running daemon and a real model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam
from pydantic import BaseModel

from tests.e2e.helpers import DEADLINE_S, ENGINE, Daemon

pytestmark = pytest.mark.model

CAPITAL: list[MessageParam] = [{"role": "user", "content": "Name the capital city of France."}]
PARIS = "The capital city of France is Paris."
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def sdk(daemon: Daemon) -> Iterator[anthropic.Anthropic]:
    """The official client, as the documentation says to set it up."""
    with anthropic.Anthropic(
        base_url=daemon.url, api_key="none", max_retries=0, timeout=DEADLINE_S
    ) as client:
        yield client


def test_a_message_is_made(sdk: anthropic.Anthropic) -> None:
    message = sdk.messages.create(
        model=ENGINE, max_tokens=64, messages=CAPITAL, extra_body={"temperature": 0}
    )
    [block] = message.content
    assert block.type == "text"
    assert (block.text, message.stop_reason, message.model) == (PARIS, "end_turn", ENGINE)
    usage = message.usage
    counted = sdk.messages.count_tokens(model=ENGINE, messages=CAPITAL)
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_message_streams(sdk: anthropic.Anthropic) -> None:
    with sdk.messages.stream(
        model=ENGINE, max_tokens=64, messages=CAPITAL, extra_body={"temperature": 0}
    ) as stream:
        start = next(event for event in stream if event.type == "message_start")
        prompt_tokens = start.message.usage.input_tokens + (start.message.usage.cache_read_input_tokens or 0)
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 1
    assert prompt_tokens > 5
    assert "".join(pieces) == PARIS
    assert (message.stop_reason, message.usage.output_tokens > 5) == ("end_turn", True)


def test_stop_sequences_and_limits_have_their_reasons(sdk: anthropic.Anthropic) -> None:
    message = sdk.messages.create(
        model=ENGINE,
        max_tokens=64,
        messages=CAPITAL,
        stop_sequences=[" France"],
        extra_body={"temperature": 0},
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " France")
    message = sdk.messages.create(model=ENGINE, max_tokens=3, messages=CAPITAL)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


def test_a_prefilled_answer_goes_on(sdk: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [*CAPITAL, {"role": "assistant", "content": "The capital city of"}]
    message = sdk.messages.create(
        model=ENGINE, max_tokens=64, messages=messages, extra_body={"temperature": 0}
    )
    [block] = message.content
    assert block.type == "text"
    assert block.text == " France is Paris."


def test_a_tool_loop_of_two_rounds(sdk: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": "Will it rain in Oslo?"}]
    first = sdk.messages.create(
        model=ENGINE,
        max_tokens=256,
        messages=messages,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    )
    assert first.stop_reason == "tool_use"
    [call] = [block for block in first.content if block.type == "tool_use"]
    assert call.name == "weather"
    assert isinstance(call.input["city"], str)
    assert call.input["days"] in range(1, 15)
    results: list[ToolResultBlockParam] = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "Rain, 4 degrees"}
    ]
    messages += [first.to_param(), {"role": "user", "content": results}]
    second = sdk.messages.create(
        model=ENGINE, max_tokens=64, messages=messages, tools=[WEATHER], tool_choice={"type": "none"}
    )
    assert [block.type for block in second.content] == ["text"]


class City(BaseModel):
    """What the model is asked for."""

    name: Literal["Paris", "Rome"]  # the client leaves bounds of lengths out of the schema
    large: bool


def test_parse_gives_a_typed_answer(sdk: anthropic.Anthropic) -> None:
    message = sdk.messages.parse(model=ENGINE, max_tokens=256, messages=CAPITAL, output_format=City)
    assert isinstance(message.parsed_output, City)


def test_errors_are_the_clients_own_classes(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.create(model="nobody", max_tokens=5, messages=CAPITAL)
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        sdk.messages.create(
            model=ENGINE, max_tokens=5, messages=[{"role": "user", "content": "rain " * 20_000}]
        )
    broken: ToolParam = {
        "name": "f",
        "input_schema": {"type": "object", "properties": {"a": {"pattern": "("}}},
        "strict": True,
    }
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.input_schema"):
        sdk.messages.create(model=ENGINE, max_tokens=5, messages=CAPITAL, tools=[broken])
