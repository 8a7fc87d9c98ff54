"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.anthropic.body import CountBody, MessagesBody
from kolosal.routes.anthropic.encode import AnthropicMessage, MessageEncoder
from kolosal.routes.anthropic.errors import error_frame
from kolosal.routes.anthropic.stream import PING, message_frames
from kolosal.routes.common.generation import start_generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.common.stream_answer import stream_generation
from kolosal.routes.common.unary_calls import count_prompt_tokens
from kolosal.routes.openai.encode import answer_id

_EXAMPLE = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


class InputTokens(TypedDict):
    """The size of a prompt."""

    input_tokens: int


@Operation(
    group=Group.ANTHROPIC,
    scope=Access.INFERENCE,
    body=MessagesBody,
    answer="The message: its content blocks, why it ended, and the tokens it took.",
    example={**_EXAMPLE, "max_tokens": 128},
)
async def create_message(request: Request) -> JsonResponse[AnthropicMessage] | EventStream:
    """Continue a conversation, in Anthropic's way."""
    body = await decode(request, MessagesBody)
    model = body.requested_model(registry_of(request))
    prompts = [body.to_request()]
    encoder = MessageEncoder(answer_id("msg_"), model, body.max_tokens, body.shows_thinking)
    if body.stream:
        return await stream_generation(
            request,
            model,
            prompts,
            lambda started: message_frames(encoder, started.events(), started.usage(0)),
            error_frame,
            ping=PING,
        )
    generation = await start_generation(request, model, prompts)
    [turn] = await generation.finish(generation.turns())
    return JsonResponse(encoder.whole(turn))


@Operation(
    group=Group.ANTHROPIC,
    scope=Access.INFERENCE,
    body=CountBody,
    answer="`input_tokens`: the size of the prompt, with system, tools and all the chat template adds.",
    example=_EXAMPLE,
)
async def count_tokens(request: Request) -> JsonResponse[InputTokens]:
    """Count the tokens of a conversation without continuing it."""
    body = await decode(request, CountBody)
    model = body.requested_model(registry_of(request))
    n_tokens = await count_prompt_tokens(request, model, body.to_prompt())
    return JsonResponse({"input_tokens": n_tokens})
