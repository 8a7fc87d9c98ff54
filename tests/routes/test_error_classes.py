"""What goes wrong is, to each official client, its own class of error with the right status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest

from kolosal.errors import EngineDied, KolosalError, QueueFull
from kolosal.schema import TokenDelta
from tests.fakes import FakeEngine, says
from tests.routes.common.test_access import ADMIN, USER, app_with_keys

MESSAGES: list[Any] = [{"role": "user", "content": "Hello"}]

Ask: TypeAlias = Callable[..., Awaitable[Any]]
"""Have a client ask a model for text; keyword arguments are the call's own."""


def transport2(engine: FakeEngine) -> httpx2.AsyncClient:
    app = app_with_keys(engine)
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app, raise_app_exceptions=False))


@asynccontextmanager
async def openai_sdk(engine: FakeEngine, key: str) -> AsyncIterator[dict[str, Ask]]:
    async with openai.AsyncOpenAI(
        base_url="http://localhost/v1", api_key=key, max_retries=0, http_client=transport2(engine)
    ) as sdk:

        async def chat(model: str, **fields: Any) -> Any:
            return await sdk.chat.completions.create(model=model, messages=MESSAGES, **fields)

        async def complete(model: str, **fields: Any) -> Any:
            return await sdk.completions.create(model=model, prompt="Hello", **fields)

        async def respond(model: str, **fields: Any) -> Any:
            return await sdk.responses.create(model=model, input="Hello", **fields)

        async def embed(model: str, **fields: Any) -> Any:
            return await sdk.embeddings.create(model=model, input="Hello", **fields)

        yield {"chat": chat, "completions": complete, "responses": respond, "embeddings": embed}


@asynccontextmanager
async def anthropic_sdk(engine: FakeEngine, key: str) -> AsyncIterator[dict[str, Ask]]:
    async with anthropic.AsyncAnthropic(
        base_url="http://localhost", api_key=key, max_retries=0, http_client=transport2(engine)
    ) as sdk:

        async def create(model: str, **fields: Any) -> Any:
            return await sdk.messages.create(model=model, max_tokens=5, messages=MESSAGES, **fields)

        yield {"messages": create}


@asynccontextmanager
async def ollama_sdk(engine: FakeEngine, key: str) -> AsyncIterator[dict[str, Ask]]:
    transport = httpx.ASGITransport(app=app_with_keys(engine), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}"}
    async with AsyncExitStack() as stack:
        sdk = ollama.AsyncClient("http://localhost", transport=transport, headers=headers)
        stack.push_async_exit(sdk)

        async def chat(model: str, **fields: Any) -> Any:
            return await sdk.chat(model, MESSAGES, **fields)

        async def generate(model: str, **fields: Any) -> Any:
            return await sdk.generate(model, "Hello", **fields)

        async def embed(model: str, **fields: Any) -> Any:
            return await sdk.embed(model, "Hello", **fields)

        yield {"chat": chat, "generate": generate, "embed": embed}


CALLS = [
    (openai_sdk, "chat"), (openai_sdk, "completions"), (openai_sdk, "responses"), (openai_sdk, "embeddings"),
    (anthropic_sdk, "messages"), (ollama_sdk, "chat"), (ollama_sdk, "generate"), (ollama_sdk, "embed"),
]  # fmt: skip

CLASSES: dict[Any, dict[str, tuple[type[Exception], int]]] = {
    openai_sdk: {
        "key": (openai.AuthenticationError, 401), "scope": (openai.PermissionDeniedError, 403),
        "model": (openai.NotFoundError, 404), "full": (openai.RateLimitError, 429), "died": (openai.InternalServerError, 503),
    },
    anthropic_sdk: {
        "key": (anthropic.AuthenticationError, 401), "scope": (anthropic.PermissionDeniedError, 403),
        "model": (anthropic.NotFoundError, 404), "full": (anthropic.RateLimitError, 429),
        "died": (anthropic.InternalServerError, 529),
    },
    ollama_sdk: {
        "key": (ollama.ResponseError, 401), "scope": (ollama.ResponseError, 403), "model": (ollama.ResponseError, 404),
        "full": (ollama.ResponseError, 503), "died": (ollama.ResponseError, 503),
    },
}  # fmt: skip

every_call = pytest.mark.parametrize(("sdk", "name"), CALLS)


def engine_that(error: KolosalError | None = None) -> FakeEngine:
    engine = FakeEngine("fake", says("Hi") if error is None else lambda _: [error])
    if error is not None:
        engine.answer = lambda _: error
    return engine


@every_call
@pytest.mark.parametrize(
    ("what", "key", "model", "error"),
    [
        ("key", "no such key", "fake", None), ("scope", ADMIN, "fake", None), ("model", USER, "nobody", None),
        ("full", USER, "fake", QueueFull("Full")), ("died", USER, "fake", EngineDied("gone")),
    ],
)  # fmt: skip
async def test_each_error_has_its_class(
    sdk: Any, name: str, what: str, key: str, model: str, error: KolosalError | None
) -> None:
    wanted, status = CLASSES[sdk][what]
    async with sdk(engine_that(error), key) as calls:
        with pytest.raises(wanted) as raised:
            await calls[name](model)
    assert getattr(raised.value, "status_code", None) == status


@every_call
async def test_with_its_key_each_is_answered(sdk: Any, name: str) -> None:
    async with sdk(engine_that(), USER) as calls:
        await calls[name]("fake")


@pytest.mark.parametrize(
    ("sdk", "name", "wanted"),
    [
        (openai_sdk, "chat", openai.APIError), (openai_sdk, "completions", openai.APIError),
        (anthropic_sdk, "messages", anthropic.APIStatusError), (ollama_sdk, "chat", ollama.ResponseError),
        (ollama_sdk, "generate", ollama.ResponseError),
    ],
)  # fmt: skip
async def test_an_engine_that_dies_half_way_is_raised_while_reading(
    sdk: Any, name: str, wanted: type[Exception]
) -> None:
    engine = FakeEngine("fake", lambda _: [TokenDelta("Half"), EngineDied("gone")])
    async with sdk(engine, USER) as calls:
        stream = await calls[name]("fake", stream=True)
        with pytest.raises(wanted, match="gone"):
            async for _ in stream:
                pass


async def test_a_response_that_dies_half_way_says_that_it_failed() -> None:
    engine = FakeEngine("fake", lambda _: [TokenDelta("Half"), EngineDied("gone")])
    async with openai_sdk(engine, USER) as calls:
        *_, last = [event async for event in await calls["responses"]("fake", stream=True)]
    assert (last.type, last.response.status, last.response.error.message) == (
        "response.failed",
        "failed",
        "gone",
    )


async def test_a_value_that_is_out_of_range_is_a_bad_request() -> None:
    async with openai_sdk(engine_that(), USER) as calls:
        with pytest.raises(openai.BadRequestError) as refused:
            await calls["chat"]("fake", temperature=9)
        assert refused.value.param == "temperature"
    async with anthropic_sdk(engine_that(), USER) as calls:
        with pytest.raises(anthropic.BadRequestError, match="temperature"):
            await calls["messages"]("fake", extra_body={"temperature": 9})
    async with ollama_sdk(engine_that(), USER) as calls:
        with pytest.raises(ollama.ResponseError, match="temperature") as response:
            await calls["chat"]("fake", options={"temperature": 9})
        assert response.value.status_code == 400
