"""`/v1/threads/…/runs` and their steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request

from kolosal.assistants.objects import AssistantObject, MessageObject, RunObject, RunStepObject, ThreadObject
from kolosal.assistants.runs import (
    RUN_TTL_S,
    cancelled_by_client,
    closed_step,
    moved,
    refuse_while_active,
    step_as_it_is,
    wanted_calls,
    with_outputs,
)
from kolosal.assistants.searches import shown_step
from kolosal.assistants.writer import RunEvent
from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.assistants.bodies import (
    MetadataBody,
    RunBody,
    RunFields,
    ThreadBody,
    ThreadRunBody,
    ToolOutputsBody,
    format_object,
    resources_object,
    tool_objects,
)
from kolosal.routes.assistants.feed import error_event
from kolosal.routes.assistants.lists import RunList, RunStepList, StepQuery, StepsQuery
from kolosal.routes.assistants.live import LiveRun, active_run
from kolosal.routes.assistants.threads import HELLO, message_objects, new_thread, refuse_if_full
from kolosal.routes.common.body import required
from kolosal.routes.common.lists import ListQuery, object_list
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import caller_of
from kolosal.store.collections import ASSISTANTS, MESSAGES, RUNS, STEPS, THREADS
from kolosal.store.pages import StoredRow

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

POLL_AFTER_MS = {"openai-poll-after-ms": "100"}
"""When the official clients look at a run again."""

_ANSWER = "The run, which is `queued`, or the events of its stream."
_EXAMPLE_ID = "asst_abc123"


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=RunBody,
    query=StepQuery,
    example={"assistant_id": _EXAMPLE_ID},
    answer=_ANSWER,
)
async def create_run(request: Request) -> JsonResponse[RunObject] | EventStream:
    """Have an assistant answer in a thread."""
    with_content = read_query(request, StepQuery).with_content
    body, caller = await decode(request, RunBody), caller_of(request)
    body.refuse_unsupported()
    thread_id, now = request.path_params["thread_id"], int(time.time())
    messages = message_objects(thread_id, body.additional_messages or (), now, "additional_messages")
    live = LiveRun(request, caller, streams=bool(body.stream), with_content=with_content)
    try:
        async with caller.services.store.writing(caller.key_id) as session:
            await session.get(THREADS, thread_id, lock=True)
            if (active := await active_run(session, caller.services.runs, thread_id)) is not None:
                refuse_while_active(active)
            await refuse_if_full(session, thread_id, len(messages))
            run = await _new_run(session, body, thread_id, messages, now, body.additional_instructions)
            caller.services.runs.add(live, run)
    except BaseException:
        caller.services.runs.drop(live)
        raise
    return _begin(request, live, [RunEvent("thread.run.created", run)])


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=ThreadRunBody,
    query=StepQuery,
    example={"assistant_id": _EXAMPLE_ID, "thread": {"messages": [HELLO]}},
    answer=_ANSWER,
)
async def create_thread_and_run(request: Request) -> JsonResponse[RunObject] | EventStream:
    """Begin a thread and have an assistant answer in it."""
    with_content = read_query(request, StepQuery).with_content
    body, caller = await decode(request, ThreadRunBody), caller_of(request)
    body.refuse_unsupported()
    now = int(time.time())
    thread, messages = new_thread(body.thread or ThreadBody(), now)
    if thread["tool_resources"] is None:
        thread = cast("ThreadObject", {**thread, "tool_resources": resources_object(body.tool_resources)})
    live = LiveRun(request, caller, streams=bool(body.stream), with_content=with_content)
    try:
        async with caller.services.store.writing(caller.key_id) as session:
            await session.insert(THREADS, thread)
            run = await _new_run(session, body, thread["id"], messages, now)
            caller.services.runs.add(live, run)
    except BaseException:
        caller.services.runs.drop(live)
        raise
    created = [RunEvent("thread.created", thread), RunEvent("thread.run.created", run)]
    return _begin(request, live, created)


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, query=ListQuery, answer="A page of runs.")
async def list_runs(request: Request) -> JsonResponse[RunList]:
    """The runs of a thread."""
    query, caller = read_query(request, ListQuery), caller_of(request)
    thread_id = request.path_params["thread_id"]
    async with caller.services.store.reading(caller.key_id) as session:
        await session.get(THREADS, thread_id)
        page = await session.page(RUNS, query.part, thread_id=thread_id)
    current = caller.services.runs.current
    return JsonResponse(object_list(page, lambda data: current(cast("RunObject", data))))


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="The run.")
async def show_run(request: Request) -> JsonResponse[RunObject]:
    """One run."""
    caller = caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        run = await _run_of(request, session)
    return JsonResponse(run, headers=POLL_AFTER_MS)


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=MetadataBody,
    example={"metadata": {"seen": "yes"}},
    answer="The run as it is now.",
)
async def change_run(request: Request) -> JsonResponse[RunObject]:
    """Change the labels of a run."""
    body, caller = await decode(request, MetadataBody), caller_of(request)
    metadata = body.metadata or {}
    async with caller.services.store.writing(caller.key_id) as session:
        path = request.path_params
        found = await session.get(RUNS, path["run_id"], lock=True, thread_id=path["thread_id"])
        kept = cast("RunObject", {**found, "metadata": metadata})
        await session.replace(RUNS, kept)
    live = caller.services.runs.find(kept["id"])
    return JsonResponse(caller.services.runs.current(kept) if live is None else live.relabel(metadata))


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, answer="The run, `cancelling` or `cancelled`.")
async def cancel_run(request: Request) -> JsonResponse[RunObject]:
    """Stop a run. What it said so far is kept as an incomplete message."""
    caller, now = caller_of(request), int(time.time())
    await caller.services.runs.kept(request.path_params["run_id"])
    async with caller.services.store.writing(caller.key_id) as session:
        run = await _run_of(request, session, lock=True)
        live = caller.services.runs.find(run["id"])
        if live is None:
            run = cancelled_by_client(run, now)
            await session.replace(RUNS, run, status=run["status"])
            for row in await _open_steps(session, run):
                step = closed_step(cast("RunStepObject", row.data), run["status"], now)
                await session.replace(STEPS, step)
    return JsonResponse(run if live is None else live.cancel())


@Operation(
    group=Group.ASSISTANTS,
    scope=Access.INFERENCE,
    body=ToolOutputsBody,
    example={"tool_outputs": [{"tool_call_id": "call_abc123", "output": "22 degrees"}]},
    answer=_ANSWER,
)
async def submit_tool_outputs(request: Request) -> JsonResponse[RunObject] | EventStream:
    """Say what the calls gave that a run waits for; it goes on then."""
    body, caller, now = await decode(request, ToolOutputsBody), caller_of(request), int(time.time())
    outputs = {each.tool_call_id: each.output for each in body.tool_outputs}
    await caller.services.runs.kept(request.path_params["run_id"])
    live = LiveRun(request, caller, streams=bool(body.stream))
    try:
        async with caller.services.store.writing(caller.key_id) as session:
            run = await _run_of(request, session, lock=True)
            wanted_calls(run, [each.tool_call_id for each in body.tool_outputs])
            run = moved(run, "queued", now)
            await session.replace(RUNS, run, status=run["status"])
            steps = [
                with_outputs(cast("RunStepObject", row.data), outputs, now)
                for row in await _open_steps(session, run)
            ]
            for step in steps:
                await session.replace(STEPS, step)
            caller.services.runs.add(live, run)
    except BaseException:
        caller.services.runs.drop(live)
        raise
    return _begin(request, live, [RunEvent("thread.run.step.completed", step) for step in steps])


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, query=StepsQuery, answer="A page of steps.")
async def list_steps(request: Request) -> JsonResponse[RunStepList]:
    """The steps of a run: messages that it made, and calls."""
    query, caller = read_query(request, StepsQuery), caller_of(request)
    with_content = query.with_content
    async with caller.services.store.reading(caller.key_id) as session:
        run = await _run_of(request, session)
        page = await session.page(STEPS, query.part, run_id=run["id"])
    return JsonResponse(object_list(page, lambda data: _shown(data, run, with_content)))


@Operation(group=Group.ASSISTANTS, scope=Access.INFERENCE, query=StepQuery, answer="The step.")
async def show_step(request: Request) -> JsonResponse[RunStepObject]:
    """One step."""
    with_content, caller = read_query(request, StepQuery).with_content, caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        run = await _run_of(request, session)
        found = await session.get(STEPS, request.path_params["step_id"], run_id=run["id"])
    return JsonResponse(_shown(found, run, with_content))


def _shown(step: Mapping[str, Any], run: RunObject, with_content: bool) -> RunStepObject:
    """A step that was kept, as it is now."""
    return shown_step(step_as_it_is(cast("RunStepObject", step), run), with_content=with_content)


def _begin(request: Request, live: LiveRun, first: list[RunEvent]) -> JsonResponse[RunObject] | EventStream:
    """Carry out a run that is kept: its first events begin the stream."""
    run = live.run
    caller_of(request).services.runs.begin(live)
    if live.feed is None:
        return JsonResponse(run)
    live.feed.put([*first, RunEvent("thread.run.queued", run)])
    return EventStream(live.feed.frames(), live.feed.leave, error_event)


async def _new_run(
    session: StoreSession,
    body: RunFields,
    thread_id: str,
    messages: list[MessageObject],
    now: int,
    more_instructions: str | None = None,
) -> RunObject:
    """Keep the messages and a run that is queued."""
    assistant = cast("AssistantObject", await session.get(ASSISTANTS, body.assistant_id))
    run = run_object(body, assistant, thread_id, now, more_instructions)
    await session.insert_all(MESSAGES, ((each, {"thread_id": thread_id}) for each in messages))
    await session.insert(RUNS, run, thread_id=thread_id, status=run["status"])
    return run


def run_object(
    body: RunFields, assistant: AssistantObject, thread_id: str, now: int, more_instructions: str | None
) -> RunObject:
    """A run as it begins: the assistant's, but for what the request says."""
    instructions = (assistant["instructions"] if body.instructions is None else body.instructions) or ""
    strategy = body.truncation_strategy
    if strategy is not None and strategy.type == "last_messages":
        required(strategy.last_messages, "truncation_strategy.last_messages")

    def chosen(name: str) -> Any:
        own = getattr(body, name)
        return assistant[name] if own is None else own  # type: ignore[literal-required]

    return {
        "id": RUNS.new_id(),
        "object": "thread.run",
        "created_at": now,
        "thread_id": thread_id,
        "assistant_id": assistant["id"],
        "status": "queued",
        "required_action": None,
        "last_error": None,
        "expires_at": now + RUN_TTL_S,
        "started_at": None,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None,
        "incomplete_details": None,
        "model": chosen("model"),
        "instructions": "\n".join(filter(None, (instructions, more_instructions))),
        "tools": assistant["tools"] if body.tools is None else tool_objects(body.tools),
        "metadata": body.metadata or {},
        "usage": None,
        "temperature": chosen("temperature"),
        "top_p": chosen("top_p"),
        "max_prompt_tokens": body.max_prompt_tokens,
        "max_completion_tokens": body.max_completion_tokens,
        "truncation_strategy": (
            {"type": "auto", "last_messages": None} if strategy is None else strategy.model_dump()
        ),
        "tool_choice": _choice(body),
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "reasoning_effort": chosen("reasoning_effort"),
        "response_format": (
            assistant["response_format"]
            if body.response_format is None
            else format_object(body.response_format)
        ),
    }


def _choice(body: RunFields) -> Any:
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    if choice.type == "function":
        required(choice.function, "tool_choice.function")
    return choice.model_dump(exclude_none=True)


async def _run_of(request: Request, session: StoreSession, *, lock: bool = False) -> RunObject:
    """The run of the path, as it is now.

    Raises:
        NotFound: there is no such thread, or no such run in it.
    """
    thread_id, run_id = request.path_params["thread_id"], request.path_params["run_id"]
    found = await session.find(RUNS, run_id, lock=lock, thread_id=thread_id)
    if found is None:
        await session.get(THREADS, thread_id)
        found = await session.get(RUNS, run_id, thread_id=thread_id)
    return caller_of(request).services.runs.current(cast("RunObject", found))


async def _open_steps(session: StoreSession, run: RunObject) -> list[StoredRow]:
    """Steps whose calls nobody has carried out yet."""
    rows = await session.newest(STEPS, 1, lock=True, run_id=run["id"], type="tool_calls")
    return [row for row in rows if row.data["status"] == "in_progress"]
