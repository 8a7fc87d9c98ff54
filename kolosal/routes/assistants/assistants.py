"""`/v1/assistants`."""

from __future__ import annotations

import time
from typing import cast

from starlette.requests import Request

from kolosal.assistants.objects import AssistantObject
from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.routes.assistants.bodies import AssistantBody, AssistantChanges
from kolosal.routes.assistants.lists import AssistantList
from kolosal.routes.common.lists import Deleted, ListQuery, deleted, object_list
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import caller_of
from kolosal.store.collections import ASSISTANTS


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=AssistantBody,
    example={"model": "tiny", "name": "Helper", "instructions": "Answer briefly."},
    answer="The assistant.",
)
async def create_assistant(request: Request) -> JsonResponse[AssistantObject]:
    """Make an assistant: a model with instructions and tools."""
    body = await decode(request, AssistantBody)
    assistant: AssistantObject = {
        "id": ASSISTANTS.new_id(),
        "object": "assistant",
        "created_at": int(time.time()),
        "name": None,
        "description": None,
        "model": body.model,
        "instructions": None,
        "tools": [],
        "tool_resources": None,
        "metadata": {},
        "temperature": None,
        "top_p": None,
        "reasoning_effort": None,
        "response_format": "auto",
    }
    assistant = cast("AssistantObject", assistant | body.given())
    caller = caller_of(request)
    async with caller.services.store.writing(caller.key_id) as session:
        await session.insert(ASSISTANTS, assistant)
    return JsonResponse(assistant)


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, query=ListQuery, answer="A page of assistants.")
async def list_assistants(request: Request) -> JsonResponse[AssistantList]:
    """The assistants of this API key."""
    query, caller = read_query(request, ListQuery), caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        return JsonResponse(object_list(await session.page(ASSISTANTS, query.part)))


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="The assistant.")
async def show_assistant(request: Request) -> JsonResponse[AssistantObject]:
    """One assistant."""
    caller = caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        found = await session.get(ASSISTANTS, request.path_params["assistant_id"])
    return JsonResponse(cast("AssistantObject", found))


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=AssistantChanges,
    example={"instructions": "Answer in one word."},
    answer="The assistant as it is now.",
)
async def change_assistant(request: Request) -> JsonResponse[AssistantObject]:
    """Change an assistant. What is left out stays; runs that have begun go on as they were."""
    body, caller = await decode(request, AssistantChanges), caller_of(request)
    changes = body.given() | ({} if body.model is None else {"model": body.model})
    async with caller.services.store.writing(caller.key_id) as session:
        found = await session.get(ASSISTANTS, request.path_params["assistant_id"], lock=True)
        assistant = cast("AssistantObject", {**found, **changes})
        await session.replace(ASSISTANTS, assistant)
    return JsonResponse(assistant)


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_assistant(request: Request) -> JsonResponse[Deleted]:
    """Delete an assistant. Its threads and runs stay."""
    caller, assistant_id = caller_of(request), request.path_params["assistant_id"]
    async with caller.services.store.writing(caller.key_id) as session:
        await session.delete(ASSISTANTS, assistant_id)
    return JsonResponse(deleted(assistant_id, "assistant.deleted"))
