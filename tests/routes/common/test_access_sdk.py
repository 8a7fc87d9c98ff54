"""The official clients with their keys: each finds its key taken, and its own class of error where it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anthropic
import httpx2
import openai
import pytest

from tests.fakes import FakeEngine, says
from tests.openai_client import openai_client
from tests.routes.common.test_access import ADMIN, USER, app_with_keys


@asynccontextmanager
async def anthropic_client(key: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    transport = httpx2.ASGITransport(
        app=app_with_keys(FakeEngine("fake", says("Hi"))), raise_app_exceptions=False
    )
    http = httpx2.AsyncClient(transport=transport)
    async with anthropic.AsyncAnthropic(
        base_url="http://localhost", api_key=key, max_retries=0, http_client=http
    ) as client:
        yield client


async def test_openai() -> None:
    app = app_with_keys(FakeEngine("fake", says("Hi")))
    async with openai_client(app, USER) as client:
        made = await client.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "Hello"}]
        )
        assert made.choices[0].message.content == "Hi"
    async with openai_client(app, "wrong") as client:
        with pytest.raises(openai.AuthenticationError) as wrong:
            await client.models.list()
        assert wrong.value.code == "invalid_api_key"
    async with openai_client(app, ADMIN) as client:
        with pytest.raises(openai.PermissionDeniedError) as scope:
            await client.completions.create(model="fake", prompt="Hello")
        assert scope.value.code == "missing_scope"


async def test_anthropic() -> None:
    async with anthropic_client(USER) as client:
        made = await client.messages.create(
            model="fake", max_tokens=5, messages=[{"role": "user", "content": "Hello"}]
        )
        assert made.content[0].type == "text"
    async with anthropic_client("wrong") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(
                model="fake", max_tokens=5, messages=[{"role": "user", "content": "Hello"}]
            )
    async with anthropic_client(ADMIN) as client:
        with pytest.raises(anthropic.PermissionDeniedError):
            await client.messages.count_tokens(model="fake", messages=[{"role": "user", "content": "Hello"}])
