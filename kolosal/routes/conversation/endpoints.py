"""`POST` and `GET /chat/blocking`, `POST /chat/stream`, `GET /ping`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, NotRequired

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import services_of
from kolosal.routes.common.stream_answer import stream_answer
from kolosal.routes.conversation.body import ChatQuery, ConversationBody, PingQuery, decode_chat, decode_query
from kolosal.routes.conversation.pipeline_generation import PipelineGeneration

_EXAMPLE = {"prompt": "Hello"}


class ChatReply(TypedDict):
    """A whole answer."""

    reply: str
    """The answer; an improved one where that was asked for."""
    steps: NotRequired[dict[str, str]]
    """With `improvement` and `intermediate_steps`: the draft, and of both reviews suggestions, revision and comments."""


class PingAnswer(TypedDict):
    """A sign of life."""

    status: Literal["ok"]


@Operation(
    group=Group.CONVERSATION,
    scope=Access.INFERENCE,
    body=ConversationBody,
    answer="The answer.",
    example=_EXAMPLE,
)
async def chat_blocking(request: Request) -> JsonResponse[ChatReply]:
    """Answer a message, whole."""
    return await _blocking(request, await decode_chat(request))


@Operation(
    group=Group.CONVERSATION,
    scope=Access.INFERENCE,
    key_in_query=True,
    query=ChatQuery,
    answer="The answer.",
)
async def ask_blocking(request: Request) -> JsonResponse[ChatReply]:
    """Answer a message that is in the query, whole; for browsers."""
    return await _blocking(request, decode_query(request))


@Operation(
    group=Group.CONVERSATION,
    scope=Access.INFERENCE,
    body=ConversationBody,
    answer="The answer's text as it comes; after it `[[END]]`, unless generating failed.",
    media_type="text/plain",
    example=_EXAMPLE,
)
async def chat_stream(request: Request) -> EventStream:
    """Answer a message as plain text, while it is written."""
    generation = _generation(request, await decode_chat(request))

    def chunks(_: None) -> AsyncGenerator[bytes, None]:
        return generation.chunks()

    # one that fails ends early, without its `END`: plain text has no other sign
    return await stream_answer(
        request,
        generation.start(),
        chunks,
        generation.abort,
        lambda _: b"",
        ping=b"",
        media_type="text/plain; charset=utf-8",
    )


@Operation(
    group=Group.CONVERSATION,
    scope=Access.INFERENCE,
    key_in_query=True,
    query=PingQuery,
    answer="That it is there.",
)
async def ping(_request: Request) -> JsonResponse[PingAnswer]:
    """Say that the daemon is there and that the key is right."""
    return JsonResponse({"status": "ok"})


async def _blocking(request: Request, body: ConversationBody) -> JsonResponse[ChatReply]:
    result = await unless_disconnected(request, _generation(request, body).result())
    answer: ChatReply = {"reply": result["reply"]}
    if body.improvement and body.intermediate_steps:
        answer["steps"] = {name: text for name, text in result.items() if name != "reply"}
    return JsonResponse(answer)


def _generation(request: Request, body: ConversationBody) -> PipelineGeneration:
    return PipelineGeneration(
        request, body.model or None, body.to_pipeline(services_of(request).conversation.system_prompts)
    )
