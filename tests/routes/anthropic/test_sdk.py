"""The official Anthropic client against the application, over scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import anthropic
import httpx2
import pytest
from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam
from pydantic import BaseModel

from kolosal.errors import EngineDied, InternalError, QueueFull
from kolosal.schema import ChatPrompt, GenerateRequest, GrammarKind, TokenDelta
from tests.engines.helpers import INFO
from tests.fakes import FakeEngine, Script, app_with, says
from tests.routes.anthropic.messages import CALL, WEATHER

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello"}]
TOOLS: list[ToolParam] = [WEATHER]  # type: ignore[list-item]


class Clients:
    """Makes clients of engines, and closes them in the end."""

    def __init__(self) -> None:
        self._made: list[anthropic.AsyncAnthropic] = []

    def __call__(self, engine: FakeEngine) -> anthropic.AsyncAnthropic:
        transport = httpx2.ASGITransport(app=app_with(engine), raise_app_exceptions=False)
        client = anthropic.AsyncAnthropic(
            base_url="http://localhost",
            api_key="any",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=transport),
        )
        self._made.append(client)
        return client

    async def close(self) -> None:
        for client in self._made:
            await client.close()


@pytest.fixture
async def sdk() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.close()


def _weather_service(request: GenerateRequest) -> Iterable[TokenDelta]:
    """A model that asks for the weather, and tells it when it has it."""
    assert isinstance(request.prompt, ChatPrompt)
    last = request.prompt.messages[-1]
    script: Script = says(f"{last.name}: {last.content}") if last.role == "tool" else says(*CALL)
    return script(request)  # type: ignore[return-value]


async def test_a_message_is_made(sdk: Clients) -> None:
    message = await sdk(FakeEngine(script=says("Hel", "lo"))).messages.create(
        model="fake", max_tokens=9, messages=HELLO
    )
    [block] = message.content
    assert block.type == "text"
    assert (block.text, message.stop_reason, message.usage.output_tokens) == ("Hello", "end_turn", 2)
    assert message._request_id is not None
    assert message._request_id.startswith("req_")


async def test_a_tool_loop_of_two_rounds(sdk: Clients) -> None:
    messages = sdk(FakeEngine(script=_weather_service)).messages
    asked = list(HELLO)
    first = await messages.create(model="fake", max_tokens=99, messages=asked, tools=TOOLS)
    assert first.stop_reason == "tool_use"
    [call] = [block for block in first.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("weather", {"city": "Oslo"})
    result: ToolResultBlockParam = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}
    asked += [first.to_param(), {"role": "user", "content": [result]}]
    second = await messages.create(model="fake", max_tokens=99, messages=asked, tools=TOOLS)
    assert [block.text for block in second.content if block.type == "text"] == ["weather: Rain"]
    assert second.stop_reason == "end_turn"


async def test_the_stream_helper_builds_the_message(sdk: Clients) -> None:
    client = sdk(FakeEngine(script=says("I look.", *CALL)))
    async with client.messages.stream(model="fake", max_tokens=99, messages=HELLO, tools=TOOLS) as stream:
        text = [piece async for piece in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(text) == "I look."
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.content[1].type == "tool_use"
    assert message.content[1].input == {"city": "Oslo"}
    assert (message.stop_reason, message.usage.input_tokens) == ("tool_use", 3)


async def test_thoughts_are_blocks_of_their_own(sdk: Clients) -> None:
    engine = FakeEngine(script=says("<think>", "Hm.", "</think>", "Yes."))
    engine.info = replace(INFO, thinking_tags=("<think>", "</think>"))
    message = await sdk(engine).messages.create(
        model="fake", max_tokens=5000, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    thought, text = message.content
    assert (thought.type, text.type) == ("thinking", "text")
    assert thought.thinking == "Hm."  # type: ignore[union-attr]
    [request] = engine.requests
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.template_kwargs == {"enable_thinking": True}


class City(BaseModel):
    """What the model is asked for."""

    name: str
    people: int


async def test_parse_gives_a_typed_answer(sdk: Clients) -> None:
    engine = FakeEngine(script=says('{"name": "Oslo", ', '"people": 700000}'))
    message = await sdk(engine).messages.parse(
        model="fake", max_tokens=99, messages=HELLO, output_format=City
    )
    assert message.parsed_output == City(name="Oslo", people=700_000)
    grammar = engine.requests[0].grammar
    assert grammar is not None
    assert (grammar.kind, grammar.param) == (GrammarKind.JSON_SCHEMA, "output_config.format.schema")


async def test_tokens_are_counted(sdk: Clients) -> None:
    counted = await sdk(FakeEngine()).messages.count_tokens(model="fake", messages=HELLO, tools=TOOLS)
    assert counted.input_tokens == len("Hello")


async def test_errors_are_the_clients_own_classes(sdk: Clients) -> None:
    engine = FakeEngine(script=says("a"))
    create = sdk(engine).messages.create
    with pytest.raises(anthropic.NotFoundError, match="'x' not found"):
        await create(model="x", max_tokens=9, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens must be at least 0") as refused:
        await create(model="fake", max_tokens=-1, messages=HELLO)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.request_id is not None
    for error, wanted in (
        (QueueFull("full"), anthropic.RateLimitError),
        (EngineDied("gone"), anthropic.InternalServerError),
        (InternalError(), anthropic.InternalServerError),
    ):
        engine.refusal = error
        with pytest.raises(wanted):
            await create(model="fake", max_tokens=9, messages=HELLO)


async def test_an_error_half_way_is_raised(sdk: Clients) -> None:
    client = sdk(FakeEngine(script=lambda _: [TokenDelta("Hel"), EngineDied("gone")]))
    async with client.messages.stream(model="fake", max_tokens=9, messages=HELLO) as stream:
        with pytest.raises(anthropic.APIStatusError, match="gone"):
            await stream.get_final_message()
