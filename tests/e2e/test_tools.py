"""Tools and structured answers with the official OpenAI client and a real model: the form is always right."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Literal

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel, TypeAdapter

from tests.e2e.helpers import ENGINE

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Oslo?"}]


class Weather(BaseModel):
    city: str
    unit: Literal["celsius", "fahrenheit"]
    days: int


WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of the next days.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "unit", "days"],
            "additionalProperties": False,
        },
    },
}
Sized = Callable[[int, int], int]
TIME: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "time", "parameters": {"type": "object"}},
}


async def test_forced_calls_are_valid(async_sdk: openai.AsyncOpenAI, sized: Sized) -> None:
    async def call(number: int) -> Weather:
        answer = await async_sdk.chat.completions.create(
            model=ENGINE,
            messages=[{"role": "user", "content": f"{number}: the weather, please."}],
            tools=[TIME, WEATHER],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            temperature=1,
            seed=number,
            max_tokens=120,
        )
        [choice] = answer.choices
        assert choice.finish_reason == "tool_calls"
        [made] = choice.message.tool_calls or []
        assert made.type == "function"
        assert made.function.name == "weather"
        return Weather.model_validate_json(made.function.arguments)

    found = await asyncio.gather(*(call(number) for number in range(sized(20, 100))))
    assert all(1 <= weather.days <= 7 and len(weather.city) <= 20 for weather in found)
    assert len({weather.city for weather in found}) > 1


@pytest.mark.parametrize("streams", [False, True])
async def test_required_calls_end(async_sdk: openai.AsyncOpenAI, sized: Sized, streams: bool) -> None:
    """Cases `required-ends` and `named-once`, which has one call where this has at least one."""

    async def ask(number: int) -> None:
        common: dict[str, object] = {
            "model": ENGINE, "messages": ASK, "tools": [WEATHER], "tool_choice": "required", "temperature": 1, "seed": number,
            "max_tokens": 120,
        }  # fmt: skip
        if streams:
            async with async_sdk.chat.completions.stream(**common) as events:  # type: ignore[arg-type]
                answer = await events.get_final_completion()
        else:
            answer = await async_sdk.chat.completions.create(**common)  # type: ignore[call-overload]
        [choice] = answer.choices
        assert choice.finish_reason == "tool_calls"
        assert not choice.message.content
        for call in choice.message.tool_calls or []:
            Weather.model_validate_json(call.function.arguments)

    await asyncio.gather(*(ask(number) for number in range(sized(8, 40))))


def test_a_call_that_is_cut_is_no_markup(sdk: openai.OpenAI) -> None:
    """Case `cut-call`."""
    for max_tokens in (1, 4, 8, 16):
        answer = sdk.chat.completions.create(
            model=ENGINE, messages=ASK, tools=[WEATHER], tool_choice="required", temperature=0, max_tokens=max_tokens
        )  # fmt: skip
        assert (answer.choices[0].finish_reason, answer.choices[0].message.content or "") == ("length", "")


async def test_answers_conform_to_their_schema(async_sdk: openai.AsyncOpenAI, sized: Sized) -> None:
    class Person(BaseModel):
        name: str
        age: int
        tags: list[Literal["kind", "tall", "old"]]

    schema = Person.model_json_schema() | {"additionalProperties": False}
    schema["properties"]["name"]["maxLength"] = 20
    schema["properties"]["age"] |= {"minimum": 0, "maximum": 120}
    schema["properties"]["tags"]["maxItems"] = 3

    async def ask(number: int) -> str:
        answer = await async_sdk.chat.completions.create(
            model=ENGINE,
            messages=[{"role": "user", "content": f"Describe person number {number}."}],
            response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
            temperature=1,
            seed=number,
            max_tokens=120,
        )
        [choice] = answer.choices
        assert choice.finish_reason == "stop"
        return choice.message.content or ""

    people = TypeAdapter(Person)
    for text in await asyncio.gather(*(ask(number) for number in range(sized(20, 100)))):
        people.validate_json(text)


def test_an_answer_is_parsed_into_a_model(sdk: openai.OpenAI) -> None:
    class Capital(BaseModel):
        country: Literal["France", "Norway"]
        capital: Literal["Paris", "Oslo"]

    answer = sdk.chat.completions.parse(
        model=ENGINE,
        messages=[{"role": "user", "content": "Name the capital city of France."}],
        response_format=Capital,
        temperature=0,
    )
    assert isinstance(answer.choices[0].message.parsed, Capital)


def test_a_loop_of_two_rounds(sdk: openai.OpenAI) -> None:
    messages = list(ASK)
    first = sdk.chat.completions.create(
        model=ENGINE,
        messages=messages,
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    )
    message = first.choices[0].message
    assert message.tool_calls
    messages.append(message.model_dump(exclude_none=True))  # type: ignore[arg-type]
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"weather": "rain"})}
        for call in message.tool_calls
    ]
    second = sdk.chat.completions.create(
        model=ENGINE, messages=messages, tools=[WEATHER], tool_choice="none", temperature=0, max_tokens=40
    )
    assert second.choices[0].message.content
    assert second.choices[0].finish_reason in ("stop", "length")


def test_the_streaming_helper_puts_a_call_together(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=ENGINE, messages=ASK, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False,
        temperature=1, seed=3, max_tokens=120,
    ) as stream:  # fmt: skip
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    Weather.model_validate_json(call.function.arguments)
    assert len(deltas) > 1
    assert "".join(delta.arguments_delta for delta in deltas) == call.function.arguments


async def test_free_and_forced_requests_share_a_batch(async_sdk: openai.AsyncOpenAI) -> None:
    free = async_sdk.chat.completions.create(
        model=ENGINE,
        messages=[{"role": "user", "content": "Name the capital city of France."}],
        temperature=0,
        max_tokens=12,
    )
    forced = async_sdk.chat.completions.create(
        model=ENGINE, messages=ASK, tools=[WEATHER], tool_choice="required", max_tokens=120
    )
    text, call = await asyncio.gather(free, forced)
    assert text.choices[0].message.content == "The capital city of France is Paris."
    assert call.choices[0].message.tool_calls


def test_choices_differ_and_logprobs_are_log_probabilities(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=ENGINE, messages=ASK, n=3, seed=5, temperature=1, max_tokens=16, logprobs=True, top_logprobs=5
    )
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    for choice in answer.choices:
        assert choice.logprobs is not None
        content = choice.logprobs.content or []
        assert content
        for entry in content:
            assert entry.logprob <= 0
            assert len(entry.top_logprobs) == 5
            assert sorted((top.logprob for top in entry.top_logprobs), reverse=True) == [
                top.logprob for top in entry.top_logprobs
            ]
        text = b"".join(bytes(entry.bytes or []) for entry in content).decode(errors="replace")
        assert text.startswith(choice.message.content or "")
