"""Asking the conversation paths, and a model that knows its lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.conversation.startup import ConversationSettings
from kolosal.errors import KolosalError
from kolosal.schema import ChatPrompt, FinishReason, GenerateRequest, TokenDelta, Usage
from tests.fakes import FakeEngine, FakeRegistry, Script, http_client

REVIEW1 = (
    "### Improvements\n1. Say more.\n\n### Revised Answer\nThe sky is blue by day.\n\n### Comments\nBetter."
)
REVIEW2 = (
    "### Improvements\n1. Say why.\n\n### Revised Answer\nThe sky scatters blue light.\n\n### Comments\nGood."
)
DRAFT = "The sky is blue."

DRAFT_STATUS = "🤔 Generating draft answer..."
FIRST_STATUS = "🔄️ Running first improvement pass..."
SECOND_STATUS = "🔄️ Running second improvement pass...\n\n"


def in_turn(*answers: str | KolosalError) -> Script:
    """A script that answers each request with the next of these, in pieces of five characters."""
    left = [*answers]

    def script(_request: GenerateRequest) -> Iterable[TokenDelta | KolosalError]:
        answer = left.pop(0)
        if isinstance(answer, KolosalError):
            yield TokenDelta("Half an ")
            yield answer
            return
        for start in range(0, len(answer), 5):
            yield TokenDelta(answer[start : start + 5])
        yield TokenDelta("", (), FinishReason.STOP, Usage(3, 1))

    return script


def app_of(*engines: FakeEngine, **conversation: Any) -> Starlette:
    """The real application, with these settings of the conversation paths."""
    return create_app(Settings(), FakeRegistry(*engines), ConversationSettings(**conversation))


async def post(engine: FakeEngine, path: str = "/chat/blocking", **fields: Any) -> httpx.Response:
    async with http_client(app_of(engine)) as client:
        return await client.post(path, json={"prompt": "Why is the sky blue?"} | fields)


def turns(engine: FakeEngine, request: int = 0) -> list[tuple[str, str]]:
    """The turns that the model was given in one of its requests."""
    prompt = engine.requests[request].prompt
    assert isinstance(prompt, ChatPrompt)
    return [(message.role, message.content) for message in prompt.messages]
