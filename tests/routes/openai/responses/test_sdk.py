"""The official client, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall, ResponseInputParam
from pydantic import BaseModel
from starlette.applications import Starlette

from kolosal.errors import EngineDied
from kolosal.schema import FinishReason, TokenDelta
from tests.fakes import FakeEngine, Script, app_with, says
from tests.openai_client import openai_client
from tests.routes.openai.responses.asking import CALL, WEATHER, end, in_turn

Sdk = Callable[[Script], openai.AsyncOpenAI]

TOOL = FunctionToolParam(
    type="function", name="weather", description="", parameters=WEATHER["parameters"], strict=True
)


class City(BaseModel):
    """What an answer is parsed into."""

    name: str
    people: int


@pytest.fixture
async def sdk(tmp_path: Path) -> AsyncIterator[Sdk]:
    """Makes a client of a daemon whose model says what a script gives."""
    clients: list[openai.AsyncOpenAI] = []
    daemons: list[Starlette] = []

    def make(script: Script) -> openai.AsyncOpenAI:
        url = f"sqlite:///{tmp_path / 'kolosal.db'}"
        daemons.append(app_with(FakeEngine(script=script), store_url=url))
        clients.append(openai_client(daemons[-1]))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()
    for app in daemons:
        await end(app)


async def test_a_response_is_created_read_listed_and_deleted(sdk: Sdk) -> None:
    client = sdk(says("Hel", "lo é"))
    made = await client.responses.create(model="fake", input="Hello", metadata={"a": "b"})
    assert (made.output_text, made.status, made.metadata) == ("Hello é", "completed", {"a": "b"})
    assert made.usage is not None
    assert made.usage.total_tokens == 5
    assert await client.responses.retrieve(made.id) == made
    items = [item async for item in client.responses.input_items.list(made.id, limit=1)]
    assert [item.type for item in items] == ["message"]
    counted = await client.responses.input_tokens.count(model="fake", input="Hello")
    assert (counted.input_tokens, counted.object) == (5, "response.input_tokens")
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


async def test_the_streaming_helper_adds_up(sdk: Sdk) -> None:
    client = sdk(says("Hel", "lo é"))
    async with client.responses.stream(model="fake", input="Hello") as stream:
        snapshots = [e.snapshot async for e in stream if e.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert snapshots == ["Hel", "Hello é"]
    assert final.output_text == "Hello é"


async def test_answers_are_parsed(sdk: Sdk) -> None:
    client = sdk(says('{"name": "Paris", ', '"people": 2}'))
    made = await client.responses.parse(model="fake", input="Hello", text_format=City)
    assert made.output_parsed == City(name="Paris", people=2)
    async with client.responses.stream(model="fake", input="Hello", text_format=City) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == City(name="Paris", people=2)


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_tool_loop_of_two_rounds(sdk: Sdk, streaming: bool) -> None:
    client = sdk(in_turn(says(*CALL), says("Sun.")))
    if streaming:
        async with client.responses.stream(model="fake", input="Weather?", tools=[TOOL]) as stream:
            arguments = [e.delta async for e in stream if e.type == "response.function_call_arguments.delta"]
            first = await stream.get_final_response()
        assert "".join(arguments) == '{"city": "Paris"}'
    else:
        first = await client.responses.parse(model="fake", input="Weather?", tools=[TOOL])
    [call] = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, call.arguments) == ("weather", '{"city": "Paris"}')
    result: ResponseInputParam = [{"type": "function_call_output", "call_id": call.call_id, "output": "Sun"}]
    second = await client.responses.create(
        model="fake", input=result, tools=[TOOL], previous_response_id=first.id
    )
    assert second.output_text == "Sun."


async def test_a_conversation_that_the_client_keeps_goes_on(sdk: Sdk) -> None:
    client = sdk(in_turn(says("One"), says("Two")))
    conversation: ResponseInputParam = [{"role": "user", "content": "Count"}]
    first = await client.responses.create(model="fake", input=conversation, store=False)
    conversation += first.output  # type: ignore[arg-type]  # as OpenAI's guide does
    conversation.append({"role": "user", "content": "And?"})
    assert (await client.responses.create(model="fake", input=conversation, store=False)).output_text == "Two"


async def test_an_answer_that_is_cut_off_says_so(sdk: Sdk) -> None:
    client = sdk(says("Hel", finish=FinishReason.LENGTH))
    made = await client.responses.create(model="fake", input="Hello", max_output_tokens=1)
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


async def test_errors_are_exception_classes(sdk: Sdk) -> None:
    client = sdk(says("a"))
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="fake", input="Hello", temperature=9)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="nope", input="Hello")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="fake", input="Hello", previous_response_id="resp_x")
    assert caught.value.code == "previous_response_not_found"
    made = await client.responses.create(model="fake", input="Hello")
    with pytest.raises(openai.BadRequestError, match="completed already"):
        await client.responses.cancel(made.id)


async def test_a_failure_half_way_is_the_last_event(sdk: Sdk) -> None:
    client = sdk(lambda _: [TokenDelta("Hel"), EngineDied("gone")])
    events = [e async for e in await client.responses.create(model="fake", input="Hello", stream=True)]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.code == "server_error"
