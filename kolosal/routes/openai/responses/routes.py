"""The endpoints of the Responses API."""

from __future__ import annotations

import time
from functools import partial
from typing import Literal

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.errors import InvalidRequest, NotFound, UnsupportedFeature
from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.generation import start_generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import Caller, caller_of, registry_of
from kolosal.routes.common.unary_calls import count_prompt_tokens
from kolosal.routes.openai.responses.active import ActiveResponse
from kolosal.routes.openai.responses.body import ResponseBody, ResponsePromptBody, check_include
from kolosal.routes.openai.responses.encode import ResponseObject, response_head
from kolosal.routes.openai.responses.events import ResponseWriter
from kolosal.routes.openai.responses.items import Item, new_id
from kolosal.routes.openai.responses.query import (
    InputItemList,
    ItemsQuery,
    ResponseQuery,
    page_of,
)
from kolosal.routes.openai.responses.store import StoredResponse


class ResponseDeleted(TypedDict):
    """A response that was forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokenCount(TypedDict):
    """The size of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


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
    store, stores = caller.services.responses, body.store is not False
    earlier, input_items = _conversation(caller, body)
    generation = await start_generation(request, model, [body.to_request(earlier + input_items)])

    def keep(response: StoredResponse) -> None:
        if stores:
            store.put(caller.key_id, response)

    head = response_head(body, new_id("resp"), int(time.time()), model)
    active = ActiveResponse(generation, ResponseWriter(head, time.time), keep, earlier, input_items)
    if not body.stream:
        return JsonResponse(await active.whole())
    if stores:
        store.start(caller.key_id, head["id"], active)
    return EventStream(active.frames(), active.cancel, active.encode_error)


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
    earlier, input_items = _conversation(caller_of(request), body)
    tokens = await count_prompt_tokens(request, model, body.to_prompt(earlier + input_items))
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
    return JsonResponse(_stored(request).response)


@Operation(group=Group.RESPONSES, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_response(request: Request) -> JsonResponse[ResponseDeleted]:
    """Forget a response. One that is being generated is stopped."""
    caller, response_id = caller_of(request), request.path_params["response_id"]
    caller.services.responses.delete(caller.key_id, response_id)
    return JsonResponse({"id": response_id, "object": "response", "deleted": True})


@Operation(
    group=Group.RESPONSES,
    scope=Access.INFERENCE,
    answer="The response, `cancelled`.",
)
async def cancel_response(request: Request) -> JsonResponse[ResponseObject]:
    """Stop a response that is being streamed. What there is of it is kept."""
    caller = caller_of(request)
    running = caller.services.responses.running(caller.key_id, request.path_params["response_id"])
    if running is not None:
        running.cancel()
        return JsonResponse(running.snapshot().response)
    response = _stored(request).response
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
    return JsonResponse(page_of(_stored(request).input_items, query))


def _stored(request: Request) -> StoredResponse:
    caller = caller_of(request)
    return caller.services.responses.get(caller.key_id, request.path_params["response_id"])


def _conversation(caller: Caller, body: ResponsePromptBody) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """The conversation before a request, and what the request adds."""
    store, response_id = caller.services.responses, body.previous_response_id
    find = partial(store.item, caller.key_id)
    if response_id is None:
        return (), body.to_items((), find)
    try:
        previous = store.get(caller.key_id, response_id)
    except NotFound:
        raise InvalidRequest(
            f"Previous response with id '{response_id}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from None
    if previous.response["status"] == "in_progress":
        raise InvalidRequest(
            f"previous_response_id must be that of a response that has ended, but '{response_id}' is in progress",
            param="previous_response_id",
        )
    return previous.conversation, body.to_items(previous.conversation, find)
