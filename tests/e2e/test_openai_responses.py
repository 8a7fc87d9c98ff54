"""The official OpenAI client's Responses API against the running daemon and a real model."""

from __future__ import annotations

import json

import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall
from pydantic import BaseModel

from tests.e2e.helpers import ENGINE

pytestmark = pytest.mark.model

CAPITAL = "Name the capital city of France."

WEATHER = FunctionToolParam(
    type="function",
    name="weather",
    description="The weather of a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
    strict=True,
)


class City(BaseModel):
    """What an answer is parsed into."""

    name: str
    large: bool


def test_a_response_is_created_followed_up_read_and_deleted(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model=ENGINE, input=CAPITAL, temperature=0)
    assert first.output_text == "The capital city of France is Paris."
    assert (first.status, first.model) == ("completed", ENGINE)
    second = sdk.responses.create(
        model=ENGINE, input="Say it again.", temperature=0, max_output_tokens=8, previous_response_id=first.id
    )
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens
    assert sdk.responses.retrieve(second.id) == second
    assert [item.type for item in sdk.responses.input_items.list(second.id)] == ["message"]
    counted = sdk.responses.input_tokens.count(model=ENGINE, input=CAPITAL)
    assert counted.input_tokens == first.usage.input_tokens
    for made in (first, second):
        sdk.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(made.id)


def test_a_response_streams(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model=ENGINE, input=CAPITAL, temperature=0) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert len(pieces) > 1
    assert "".join(pieces) == final.output_text == "The capital city of France is Paris."


def test_an_answer_is_parsed(sdk: openai.OpenAI) -> None:
    made = sdk.responses.parse(
        model=ENGINE, input="Describe Paris.", text_format=City, temperature=0, max_output_tokens=200
    )
    assert made.status == "completed"
    assert isinstance(made.output_parsed, City)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tool_loop_of_two_rounds(sdk: openai.OpenAI, streaming: bool) -> None:
    question = "What is the weather in Paris?"
    if streaming:
        with sdk.responses.stream(
            model=ENGINE, input=question, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
        ) as stream:
            first = stream.get_final_response()
    else:
        first = sdk.responses.parse(
            model=ENGINE, input=question, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
        )
    call = next(item for item in first.output if isinstance(item, ResponseFunctionToolCall))
    assert call.name == "weather"
    assert set(json.loads(call.arguments)) == {"city"}
    second = sdk.responses.create(
        model=ENGINE,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "Sun, 24 degrees"}],
        tools=[WEATHER],
        tool_choice="none",
        previous_response_id=first.id,
        max_output_tokens=20,
    )
    assert second.output_text


def test_errors_are_exception_classes(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model=ENGINE, input=CAPITAL, temperature=9)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        sdk.responses.create(model="nope", input=CAPITAL)
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model=ENGINE, input=CAPITAL, previous_response_id="resp_x")
    assert caught.value.code == "previous_response_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model=ENGINE, input="word " * 5000, stream=True)
    assert caught.value.code == "context_length_exceeded"
