"""`/v1/threads` and their messages."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from starlette.requests import Request

from kolosal.assistants.objects import MessageObject, ThreadObject
from kolosal.assistants.runs import refuse_while_active
from kolosal.errors import InvalidRequest
from kolosal.http.body import read_json
from kolosal.http.decode import decode, decode_body
from kolosal.http.responses import JsonResponse
from kolosal.routes.assistants.bodies import (
    MetadataBody,
    ThreadBody,
    ThreadChanges,
    ThreadMessageBody,
    resources_object,
)
from kolosal.routes.assistants.lists import MessageList, MessagesQuery
from kolosal.routes.assistants.live import active_run
from kolosal.routes.common.lists import Deleted, deleted, object_list
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import caller_of
from kolosal.store.collections import MESSAGES, RUNS, THREADS

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

HELLO = {"role": "user", "content": "Hello"}

MAX_MESSAGES = 100_000
"""Messages of one thread: the OpenAI API's bound. What models say comes on top of it."""


def new_thread(body: ThreadBody, now: int) -> tuple[ThreadObject, list[MessageObject]]:
    """A thread and its first messages."""
    thread: ThreadObject = {
        "id": THREADS.new_id(),
        "object": "thread",
        "created_at": now,
        "metadata": body.metadata or {},
        "tool_resources": resources_object(body.tool_resources),
    }
    return thread, message_objects(thread["id"], body.messages or (), now, "messages")


def message_objects(
    thread_id: str, messages: Iterable[ThreadMessageBody], now: int, path: str
) -> list[MessageObject]:
    """Messages of a request; `path` is where they stand."""
    return [each.to_object(thread_id, now, f"{path}.{index}.") for index, each in enumerate(messages)]


async def refuse_if_full(session: StoreSession, thread_id: str, n_added: int) -> None:
    """Refuse to add to a thread, which this session has read, more messages than it may have.

    Raises:
        InvalidRequest: it has too many already.
    """
    there = await session.count(MESSAGES, "thread_id", thread_id)
    if there + n_added > MAX_MESSAGES:
        raise InvalidRequest(
            f"The thread '{thread_id}' has {there} messages: at most {MAX_MESSAGES} are allowed",
            code="thread_full",
        )


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=ThreadBody,
    example={"messages": [HELLO]},
    answer="The thread.",
)
async def create_thread(request: Request) -> JsonResponse[ThreadObject]:
    """Begin a thread."""
    body = decode_body(await read_json(request) or b"{}", ThreadBody)
    caller = caller_of(request)
    thread, messages = new_thread(body, int(time.time()))
    async with caller.services.store.writing(caller.key_id) as session:
        await session.insert(THREADS, thread)
        await session.insert_all(MESSAGES, ((each, {"thread_id": thread["id"]}) for each in messages))
    return JsonResponse(thread)


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="The thread.")
async def show_thread(request: Request) -> JsonResponse[ThreadObject]:
    """One thread."""
    caller = caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        found = await session.get(THREADS, request.path_params["thread_id"])
    return JsonResponse(cast("ThreadObject", found))


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=ThreadChanges,
    example={"metadata": {"topic": "greeting"}},
    answer="The thread as it is now.",
)
async def change_thread(request: Request) -> JsonResponse[ThreadObject]:
    """Change the labels or the resources of a thread."""
    body, caller = await decode(request, ThreadChanges), caller_of(request)
    changes: dict[str, object] = {}
    if "metadata" in body.model_fields_set:
        changes["metadata"] = body.metadata or {}
    if "tool_resources" in body.model_fields_set:
        changes["tool_resources"] = resources_object(body.tool_resources)
    async with caller.services.store.writing(caller.key_id) as session:
        found = await session.get(THREADS, request.path_params["thread_id"], lock=True)
        thread = cast("ThreadObject", {**found, **changes})
        await session.replace(THREADS, thread)
    return JsonResponse(thread)


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_thread(request: Request) -> JsonResponse[Deleted]:
    """Delete a thread with its messages and runs. A run that is active is stopped."""
    caller, thread_id = caller_of(request), request.path_params["thread_id"]
    async with caller.services.store.writing(caller.key_id) as session:
        await session.delete(THREADS, thread_id)
    caller.services.runs.cancel_all(thread_id)
    return JsonResponse(deleted(thread_id, "thread.deleted"))


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=ThreadMessageBody,
    example=HELLO,
    answer="The message.",
)
async def create_thread_message(request: Request) -> JsonResponse[MessageObject]:
    """Add a message to a thread, while none of its runs is active."""
    body, caller = await decode(request, ThreadMessageBody), caller_of(request)
    thread_id = request.path_params["thread_id"]
    message = body.to_object(thread_id, int(time.time()))
    async with caller.services.store.writing(caller.key_id) as session:
        await session.get(THREADS, thread_id, lock=True)
        if (run := await active_run(session, caller.services.runs, thread_id)) is not None:
            refuse_while_active(run, adding_to=thread_id)
        await refuse_if_full(session, thread_id, 1)
        await session.insert(MESSAGES, message, thread_id=thread_id)
    return JsonResponse(message)


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, query=MessagesQuery, answer="A page of messages.")
async def list_thread_messages(request: Request) -> JsonResponse[MessageList]:
    """The messages of a thread."""
    query, caller = read_query(request, MessagesQuery), caller_of(request)
    thread_id = request.path_params["thread_id"]
    of_run = {} if query.run_id is None else {"run_id": query.run_id}
    async with caller.services.store.reading(caller.key_id) as session:
        await session.get(THREADS, thread_id)
        if query.run_id is not None:
            await session.get(RUNS, query.run_id, thread_id=thread_id)
        page = await session.page(MESSAGES, query.part, thread_id=thread_id, **of_run)
    return JsonResponse(object_list(page))


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="The message.")
async def show_thread_message(request: Request) -> JsonResponse[MessageObject]:
    """One message."""
    caller, path = caller_of(request), request.path_params
    async with caller.services.store.reading(caller.key_id) as session:
        await session.get(THREADS, path["thread_id"])
        found = await session.get(MESSAGES, path["message_id"], thread_id=path["thread_id"])
    return JsonResponse(cast("MessageObject", found))


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=MetadataBody,
    example={"metadata": {"seen": "yes"}},
    answer="The message as it is now.",
)
async def change_thread_message(request: Request) -> JsonResponse[MessageObject]:
    """Change the labels of a message."""
    body, caller, path = await decode(request, MetadataBody), caller_of(request), request.path_params
    async with caller.services.store.writing(caller.key_id) as session:
        await session.get(THREADS, path["thread_id"])
        found = await session.get(MESSAGES, path["message_id"], lock=True, thread_id=path["thread_id"])
        message = cast("MessageObject", {**found, "metadata": body.metadata or {}})
        await session.replace(MESSAGES, message)
    return JsonResponse(message)


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_thread_message(request: Request) -> JsonResponse[Deleted]:
    """Delete a message: later runs do not read it."""
    caller, path = caller_of(request), request.path_params
    async with caller.services.store.writing(caller.key_id) as session:
        await session.get(THREADS, path["thread_id"])
        await session.delete(MESSAGES, path["message_id"], thread_id=path["thread_id"])
    return JsonResponse(deleted(path["message_id"], "thread.message.deleted"))
