"""Real clients over a real socket: the OpenAI SDK, and Windows PowerShell 5.1 byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
import uvicorn
from openai.types.chat import ChatCompletionMessageParam

from kolosal.errors import EngineDied
from kolosal.http.protocol import GuardedProtocol
from kolosal.schema import ChatPrompt, GenerateRequest, Message, TokenDelta
from tests.fakes import FakeEngine, app_with, eventually, says

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(script=says("Hel", "lo é"))


@pytest.fixture
async def port(engine: FakeEngine) -> AsyncIterator[int]:
    config = uvicorn.Config(
        app_with(engine),
        port=0,
        http=GuardedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await server.shutdown()


@pytest.fixture
async def sdk(port: int) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
    ) as sdk:
        yield sdk


async def test_the_sdk_chats(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="fake", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello é"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 5


async def test_the_sdk_embeds(sdk: openai.AsyncOpenAI) -> None:
    """It asks for base64 unless told otherwise."""
    answer = await sdk.embeddings.create(model="fake", input=["a", "b"])
    as_numbers = await sdk.embeddings.create(model="fake", input=["a", "b"], encoding_format="float")

    assert [row.embedding for row in answer.data] == [[1.0, 0.0], [1.0, 0.0]]
    assert as_numbers == answer
    assert answer.usage.total_tokens == 6


async def test_the_sdk_streams(sdk: openai.AsyncOpenAI) -> None:
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(
            model="fake", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    ]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello é"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


async def test_the_sdk_completes_and_lists(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.completions.create(model="fake", prompt=["a", "b"])
    assert [choice.text for choice in answer.choices] == ["Hello é"] * 2
    pieces = [
        c.choices[0].text async for c in await sdk.completions.create(model="fake", prompt="a", stream=True)
    ]
    assert "".join(pieces) == "Hello é"
    assert [model.id async for model in sdk.models.list()] == ["fake"]


async def test_the_sdk_raises_our_errors(sdk: openai.AsyncOpenAI, engine: FakeEngine) -> None:
    with pytest.raises(openai.NotFoundError, match="Model 'nope' not found"):
        await sdk.completions.create(model="nope", prompt="x")
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.completions.create(model="fake", prompt="x", temperature=9)
    assert caught.value.param == "temperature"
    engine.script = lambda _: [TokenDelta("Hel"), EngineDied("gone")]
    with pytest.raises(openai.APIError, match="gone"):
        async for _ in await sdk.completions.create(model="fake", prompt="x", stream=True):
            pass


async def test_closing_the_connection_frees_the_engine(port: int, engine: FakeEngine) -> None:
    engine.script = None
    body = {"model": "fake", "messages": MESSAGES, "stream": True}
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        sending = asyncio.create_task(client.send(client.build_request("POST", url, json=body), stream=True))
        await engine.submitted.wait()
        engine.streams[0].put(TokenDelta("one"))
        response = await sending
        await anext(response.aiter_raw())
        await response.aclose()
    await eventually(lambda: engine.aborted)


@pytest.mark.parametrize("content_type", ["", "Content-Type: application/json\r\n"])
async def test_windows_powershell_5_1(port: int, engine: FakeEngine, content_type: str) -> None:
    """Invoke-RestMethod sends headers, waits for 100 Continue, sends ISO-8859-1, and reads by the answer's charset."""
    body = '{"model":"fake","messages":[{"role":"user","content":"Café"}]}'.encode("iso-8859-1")
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        "User-Agent: Mozilla/5.0 (Windows NT; Windows NT 10.0; de-DE) WindowsPowerShell/5.1.19041.4291\r\n"
        f"{content_type}Host: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n"
        "Connection: Keep-Alive\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    answer_head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert answer_head.startswith("http/1.1 200")
    assert "content-type: application/json; charset=utf-8" in answer_head
    length = int(answer_head.partition("content-length: ")[2].partition("\r\n")[0])
    assert '"content":"Hello é"' in (await reader.readexactly(length)).decode()
    writer.close()
    await writer.wait_closed()
    assert [r.prompt for r in engine.requests] == [ChatPrompt((Message("user", "Café"),))]
    assert isinstance(engine.requests[0], GenerateRequest)
