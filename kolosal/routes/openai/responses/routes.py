"""The endpoints of the Responses API."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Literal

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.errors import InvalidRequest, NotFound, UnsupportedFeature
from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import Caller, caller_of, registry_of
from kolosal.routes.common.stream_answer import stream_answer
from kolosal.routes.common.unary_calls import count_prompt_tokens
from kolosal.routes.openai.encode import InputTokenCount
from kolosal.routes.openai.responses.active import ActiveResponse
from kolosal.routes.openai.responses.body import ResponseBody, ResponsePromptBody, check_include
from kolosal.routes.openai.responses.encode import ResponseObject, response_head
from kolosal.routes.openai.responses.events import ResponseWriter
from kolosal.routes.openai.responses.input_items import ItemSources, references
from kolosal.routes.openai.responses.items import Item, new_id
from kolosal.routes.openai.responses.kept import EarlierTurns, ResponseKeeper, StoredResponse
from kolosal.routes.openai.responses.query import (
    InputItemList,
    ItemsQuery,
    ResponseQuery,
    page_of,
)


class ResponseDeleted(TypedDict):
    """A response that was forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


_EXAMPLE = {"model": "tiny", "input": "Hello"}


@Operation(
    group=Group.RESPONSES,
    scope=Access.INFERENCE,
    body=ResponseBody,
    example=_EXAMPLE,
    answer="The response, or the events of its stream.",
)
async def create_response(request: Request) -> JsonResponse[ResponseObject] | EventStream:
    """Answer the next turn of a conversation, and keep it unless told not to."""
    body = await decode(request, ResponseBody)
    model = body.requested_model(registry_of(request))
    caller = caller_of(request)
    kept = caller.services.responses
    if body.store is not False:
        await kept.prepare(asked=body.store is True)
    earlier, input_items = await _conversation(caller, body)
    prompts = [body.to_request(earlier.items + input_items)]
    generation = Generation(caller, None if body.stream else request)
    head = response_head(body, new_id("resp"), int(time.time()), model)
    keeper = ResponseKeeper(kept, caller.key_id, head["id"], earlier, asked=body.store is True)
    seal = caller.services.thoughts.seal if body.seals_thoughts else None
    writer = ResponseWriter(head, time.time, body.offered, seal)
    active = ActiveResponse(generation, writer, None if body.store is False else keeper, input_items)
    starting = generation.start(model, prompts)

    def frames(_: None) -> AsyncGenerator[bytes, None]:
        return active.frames()

    if body.stream:
        return await stream_answer(request, starting, frames, active.cancel, active.encode_error, model=model)
    await starting
    return JsonResponse(await active.whole())


@Operation(
    group=Group.RESPONSES,
    scope=Access.INFERENCE,
    body=ResponsePromptBody,
    example=_EXAMPLE,
    answer="`input_tokens`: how many tokens the prompt would have.",
)
async def count_input_tokens(request: Request) -> JsonResponse[InputTokenCount]:
    """Count the tokens of a prompt, the chat template's and the tools' included. Nothing is generated."""
    body = await decode(request, ResponsePromptBody)
    model = body.requested_model(registry_of(request))
    earlier, input_items = await _conversation(caller_of(request), body)
    tokens = await count_prompt_tokens(request, model, body.to_prompt(earlier.items + input_items))
    return JsonResponse({"object": "response.input_tokens", "input_tokens": tokens})


@Operation(
    group=Group.RESPONSES,
    scope=Access.INFERENCE,
    query=ResponseQuery,
    answer="The response; one that is being generated is `in_progress` and has what there is of it.",
)
async def show_response(request: Request) -> JsonResponse[ResponseObject]:
    """One kept response."""
    query = read_query(request, ResponseQuery)
    if query.stream or query.starting_after is not None:
        name = "stream" if query.stream else "starting_after"
        raise UnsupportedFeature(f"{name} is not supported here: a kept response is given whole", param=name)
    check_include(query.include)
    return JsonResponse((await _stored(request)).response)


@Operation(group=Group.RESPONSES, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_response(request: Request) -> JsonResponse[ResponseDeleted]:
    """Forget a response. One that is being generated is stopped."""
    caller, response_id = caller_of(request), request.path_params["response_id"]
    await caller.services.responses.delete(caller.key_id, response_id)
    return JsonResponse({"id": response_id, "object": "response", "deleted": True})


@Operation(
    group=Group.RESPONSES,
    scope=Access.INFERENCE,
    answer="The response, `cancelled`.",
)
async def cancel_response(request: Request) -> JsonResponse[ResponseObject]:
    """Stop a response that is being streamed. What there is of it is kept."""
    caller, response_id = caller_of(request), request.path_params["response_id"]
    running = caller.services.responses.running(caller.key_id, response_id)
    if running is not None:
        running.cancel()
        await caller.services.responses.settled(caller.key_id, response_id)
        return JsonResponse(running.snapshot().response)
    response = (await _stored(request)).response
    if response["status"] != "cancelled":
        raise InvalidRequest(
            f"The response cannot be cancelled: it is {response['status']} already", param="response_id"
        )
    return JsonResponse(response)


@Operation(
    group=Group.RESPONSES,
    scope=Access.INFERENCE,
    query=ItemsQuery,
    answer="A page of items.",
)
async def list_input_items(request: Request) -> JsonResponse[InputItemList]:
    """What the request of a kept response added to the conversation."""
    query = read_query(request, ItemsQuery)
    check_include(query.include)
    return JsonResponse(page_of((await _stored(request)).input_items, query))


async def _stored(request: Request) -> StoredResponse:
    caller = caller_of(request)
    return await caller.services.responses.show(caller.key_id, request.path_params["response_id"])


async def _conversation(caller: Caller, body: ResponsePromptBody) -> tuple[EarlierTurns, tuple[Item, ...]]:
    """The conversation before a request, and what the request adds."""
    kept, response_id = caller.services.responses, body.previous_response_id
    earlier = EarlierTurns()
    if response_id is not None:
        try:
            earlier = await kept.conversation(caller.key_id, response_id)
        except NotFound:
            raise InvalidRequest(
                f"Previous response with id '{response_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            ) from None
    found = await kept.items(caller.key_id, references(body.input))
    return earlier, body.to_items(earlier.items, ItemSources(found.get, caller.services.thoughts.open))
