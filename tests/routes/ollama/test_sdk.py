"""The official Ollama client against the application, over scripted engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import httpx
import ollama
import pytest
from pydantic import BaseModel

from kolosal.errors import EngineDied
from kolosal.schema import ChatPrompt, GenerateRequest, TokenDelta
from tests.fakes import FakeEngine, Script, app_with, says
from tests.routes.ollama.asking import CALL, HELLO, loaded_engine


class Clients:
    """Makes clients of engines, which are closed in the end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    def __call__(self, engine: FakeEngine) -> ollama.AsyncClient:
        transport = httpx.ASGITransport(app=app_with(engine), raise_app_exceptions=False)
        client = ollama.AsyncClient("http://localhost", transport=transport)
        self._stack.push_async_exit(client)
        return client


@pytest.fixture
async def sdk() -> AsyncIterator[Clients]:
    async with AsyncExitStack() as stack:
        yield Clients(stack)


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name
    """
    return f"Rain in {city}"


def _weather_service(request: GenerateRequest) -> Iterable[TokenDelta]:
    """A model that asks for the weather, and tells it when it has it."""
    assert isinstance(request.prompt, ChatPrompt)
    last = request.prompt.messages[-1]
    script: Script = says(f"{last.name}: {last.content}") if last.role == "tool" else says(*CALL)
    return script(request)  # type: ignore[return-value]


async def test_models_are_listed_shown_and_watched(sdk: Clients) -> None:
    client = sdk(loaded_engine(architecture="llama", n_params=134_515_008))
    [listed] = (await client.list()).models
    assert (listed.model, listed.details and listed.details.parameter_size) == ("fake", "134.52M")
    shown = await client.show("fake")
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    [running] = (await client.ps()).models
    assert (running.name, running.context_length) == ("fake", 64)
    assert running.expires_at is not None
    assert 280 < (running.expires_at - datetime.now(UTC)).total_seconds() <= 300


async def test_generate_whole_and_in_pieces(sdk: Clients) -> None:
    client = sdk(FakeEngine(script=says("Hel", "lo")))
    whole = await client.generate("fake", "Hi", system="Be brief", options={"temperature": 0})
    assert (whole.response, whole.done_reason, whole.eval_count) == ("Hello", "stop", 2)
    parts = [part async for part in await client.generate("fake", "Hi", stream=True)]
    assert [part.response for part in parts] == ["Hel", "lo", ""]
    assert parts[-1].context == [*b"Hi|Hello"]
    again = await client.generate("fake", "Go on", context=parts[-1].context)
    assert again.response == "Hello"
    assert (await client.generate("fake")).done_reason == "load"
    assert (await client.generate("fake", keep_alive=0)).done_reason == "unload"


async def test_a_tool_loop_of_two_rounds(sdk: Clients) -> None:
    client = sdk(FakeEngine(script=_weather_service))
    messages: list[ollama.Message] = [ollama.Message(role="user", content="Is it raining in Oslo?")]
    first = await client.chat("fake", messages, tools=[weather])
    assert first.message.tool_calls is not None
    [call] = first.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Oslo"})
    result = weather(**call.function.arguments)
    messages += [first.message, ollama.Message(role="tool", content=result, tool_name=call.function.name)]
    second = await client.chat("fake", messages, tools=[weather])
    assert (second.message.content, second.message.tool_calls) == ("weather: Rain in Oslo", None)


async def test_a_chat_with_tools_streams(sdk: Clients) -> None:
    client = sdk(FakeEngine(script=says("I look.", *CALL)))
    parts = [part async for part in await client.chat("fake", HELLO, tools=[weather], stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "I look."
    [calls] = [part.message.tool_calls for part in parts if part.message.tool_calls]
    assert calls[0].function.arguments == {"city": "Oslo"}
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_thoughts_stand_apart(sdk: Clients) -> None:
    engine = loaded_engine(says("<think>", "Hm.", "</think>", "Yes."), thinking_tags=("<think>", "</think>"))
    answer = await sdk(engine).chat("fake", HELLO, think=True)
    assert (answer.message.thinking, answer.message.content) == ("Hm.", "Yes.")


class City(BaseModel):
    """What the model is asked for."""

    name: str
    people: int


async def test_structured_output(sdk: Clients) -> None:
    client = sdk(FakeEngine(script=says('{"name": "Oslo", ', '"people": 700000}')))
    answer = await client.chat("fake", HELLO, format=City.model_json_schema())
    assert City.model_validate_json(answer.message.content or "") == City(name="Oslo", people=700_000)


async def test_vectors(sdk: Clients) -> None:
    client = sdk(FakeEngine())
    assert (await client.embed("fake", ["a", "b"])).embeddings == [[1.0, 0.0], [1.0, 0.0]]
    assert (await client.embeddings("fake", "a")).embedding == [1.0, 0.0]


async def test_errors_are_the_clients_own_class(sdk: Clients) -> None:
    client = sdk(FakeEngine(script=lambda _: [TokenDelta("Hel"), EngineDied("gone")]))
    with pytest.raises(ollama.ResponseError, match="model 'x' not found") as missing:
        await client.chat("x", HELLO)
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"options\.temperature must be at most 5") as refused:
        await client.generate("fake", "a", options={"temperature": 9})
    assert refused.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="not supported") as absent:
        await client.push("llama3.2")
    assert absent.value.status_code == 501
    with pytest.raises(ollama.ResponseError, match="gone"):
        async for _ in await client.chat("fake", HELLO, stream=True):
            pass
