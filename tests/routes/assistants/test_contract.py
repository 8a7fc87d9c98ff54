"""The Assistants API as the official client knows it, row by row of what was promised."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.beta import FunctionToolParam
from openai.types.beta.threads import Run

from kolosal.errors import StorageFull
from kolosal.routes.assistants import live
from kolosal.schema import ChatPrompt, FinishReason, GenerateRequest, Message, TokenDelta, ToolMode
from kolosal.store.collections import RUNS
from tests.fakes import AsgiRequest, FakeEngine, Script, eventually, says
from tests.routes.assistants.conftest import Assistants, Begin
from tests.routes.openai.responses.asking import CALL, WEATHER, in_turn

pytestmark = pytest.mark.filterwarnings(
    r"ignore:(deprecated|The Assistants API is deprecated.*)$:DeprecationWarning"
)

USER: Any = {"role": "user", "content": "Hello"}

TOOL = FunctionToolParam(type="function", function={"name": "weather", "parameters": WEATHER["parameters"]})


async def assistant(daemon: Assistants, **fields: Any) -> str:
    return (await daemon.sdk.beta.assistants.create(model="fake", **fields)).id


async def thread(daemon: Assistants, *texts: str) -> str:
    messages: Any = [{"role": "user", "content": text} for text in texts or ("Hello",)]
    return (await daemon.sdk.beta.threads.create(messages=messages)).id


def prompt_of(request: GenerateRequest) -> ChatPrompt:
    assert isinstance(request.prompt, ChatPrompt)
    return request.prompt


async def test_A02_assistants_are_made_listed_shown_changed_and_deleted(daemon: Assistants) -> None:
    api = daemon.sdk.beta.assistants
    made = await api.create(
        model="fake", name="Helper", tools=[TOOL, {"type": "file_search"}], metadata={"a": "b"}
    )
    assert made.object == "assistant"
    assert made.id.startswith("asst_")
    assert len(made.id) == len("asst_") + 24
    raw = (await daemon.http.get(f"/assistants/{made.id}")).json()
    assert {key for key, value in raw.items() if value is None} == {
        "description", "instructions", "tool_resources", "temperature", "top_p", "reasoning_effort",
    }  # fmt: skip
    changed = await api.update(made.id, instructions="Be brief.", name=None)
    assert (changed.name, changed.instructions, changed.metadata) == (None, "Be brief.", {"a": "b"})
    assert changed.tools == made.tools
    assert await api.retrieve(made.id) == changed
    assert (await api.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError, match=f"No assistant found with id '{made.id}'."):
        await api.retrieve(made.id)


async def test_A02_lists_go_in_both_directions(daemon: Assistants) -> None:
    async with daemon.services.store.writing(None) as session:
        from kolosal.store.collections import ASSISTANTS  # noqa: PLC0415

        rows: list[Any] = [
            {"id": f"asst_{n}", "object": "assistant", "created_at": 1, "model": "fake", "tools": []}
            for n in range(250)
        ]
        await session.insert_all(ASSISTANTS, [(row, {}) for row in rows])
    ids = [row["id"] for row in rows]
    api = daemon.sdk.beta.assistants
    for order, expected in (("asc", ids), ("desc", ids[::-1])):
        found = [each.id async for each in api.list(limit=100, order=order)]  # type: ignore[arg-type]
        assert found == expected
        back = await api.list(limit=20, order=order, before=expected[120])  # type: ignore[arg-type]
        assert [each.id for each in back.data] == expected[100:120]
        between = await api.list(limit=20, order=order, after=expected[3], before=expected[6])  # type: ignore[arg-type]
        assert [each.id for each in between.data] == expected[4:6]
    empty = (await daemon.http.get("/threads", params={"limit": 1})).status_code
    assert empty == 405  # threads have no list


@pytest.mark.parametrize("limit", [0, 101, -1, "x"])
async def test_A02_limits_are_told(daemon: Assistants, limit: object) -> None:
    answer = await daemon.http.get("/assistants", params={"limit": str(limit)})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "limit"


async def test_A03_threads_are_made_with_messages_and_deleted_with_them(daemon: Assistants) -> None:
    api = daemon.sdk.beta.threads
    assert (await daemon.http.post("/threads")).json()["object"] == "thread"  # without a body
    made = await api.create(messages=[USER, {"role": "assistant", "content": "Hi"}], metadata={"a": "b"})
    assert (await api.retrieve(made.id)).metadata == {"a": "b"}
    assert (await api.update(made.id, metadata={"c": "d"})).metadata == {"c": "d"}
    messages = (await api.messages.list(made.id)).data
    assert [m.role for m in messages] == ["assistant", "user"]
    assert (await api.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError, match="No thread found with id"):
        await api.messages.retrieve(messages[0].id, thread_id=made.id)
    async with daemon.services.store.reading(None) as session:
        assert await session.used_bytes() < 1000  # the empty thread alone


async def test_A04_messages_are_made_listed_shown_changed_and_deleted(daemon: Assistants) -> None:
    api, thread_id = daemon.sdk.beta.threads.messages, await thread(daemon)
    made = await api.create(
        thread_id, role="user", content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    )
    assert [part.text.value for part in made.content if part.type == "text"] == ["a", "b"]
    assert made.status == "completed"
    assert (await api.update(made.id, thread_id=thread_id, metadata={"k": "v"})).metadata == {"k": "v"}
    run = await daemon.sdk.beta.threads.runs.create_and_poll(
        thread_id=thread_id, assistant_id=await assistant(daemon)
    )
    of_run = (await api.list(thread_id, run_id=run.id)).data
    assert [(m.role, m.run_id, m.assistant_id) for m in of_run] == [("assistant", run.id, run.assistant_id)]
    await api.delete(made.id, thread_id=thread_id)
    with pytest.raises(openai.NotFoundError, match="No message found with id"):
        await api.retrieve(made.id, thread_id=thread_id)
    with pytest.raises(openai.BadRequestError, match="reads text only") as image:
        await api.create(
            thread_id, role="user", content=[{"type": "image_url", "image_url": {"url": "http://a"}}]
        )
    assert image.value.param == "content.0.type"


async def test_A05_a_run_is_queued_at_once_and_ends_completed(daemon: Assistants) -> None:
    thread_id = await thread(daemon)
    api = daemon.sdk.beta.threads.runs
    made = await api.create(thread_id, assistant_id=await assistant(daemon))
    assert made.status == "queued"
    run = await api.poll(made.id, thread_id=thread_id)
    assert (run.status, run.completed_at is not None) == ("completed", True)
    assert run.usage is not None
    assert run.usage.total_tokens == 5
    newest = (await daemon.sdk.beta.threads.messages.list(thread_id)).data[0]
    assert (newest.role, newest.content[0].to_dict()) == (
        "assistant",
        {"type": "text", "text": {"value": "Hello", "annotations": []}},
    )


async def test_A06_a_stream_has_the_events_in_their_order(daemon: Assistants) -> None:
    thread_id, assistant_id = await thread(daemon), await assistant(daemon)
    api = daemon.sdk.beta.threads.runs
    async with api.stream(thread_id=thread_id, assistant_id=assistant_id) as stream:
        assert "".join([text async for text in stream.text_deltas]) == "Hello"
        assert (await stream.get_final_run()).status == "completed"
    events = await api.create(thread_id, assistant_id=assistant_id, stream=True)
    names = [event.event async for event in events]
    assert [name.removeprefix("thread.") for name in names] == [
        "run.created", "run.queued", "run.in_progress", "run.step.created", "run.step.in_progress",
        "message.created", "message.in_progress", "message.delta", "message.delta", "message.completed",
        "run.step.completed", "run.completed",
    ]  # fmt: skip


async def test_A07_instructions_reach_the_model(daemon: Assistants) -> None:
    assistant_id = await assistant(daemon, instructions="Be kind.", temperature=0.5)
    api = daemon.sdk.beta.threads.runs
    cases: Any = (
        ({}, "Be kind."),
        ({"instructions": "Be short."}, "Be short."),
        ({"additional_instructions": "Use rhymes."}, "Be kind.\nUse rhymes."),
    )
    for fields, expected in cases:
        run = await api.create_and_poll(thread_id=await thread(daemon), assistant_id=assistant_id, **fields)
        assert run.instructions == expected
        asked = daemon.engine.requests[-1]
        assert prompt_of(asked).messages == (Message("system", expected), Message("user", "Hello"))
        assert asked.sampling.temperature == 0.5


async def test_A08_a_second_run_sees_the_first(daemon: Assistants) -> None:
    thread_id, assistant_id = await thread(daemon, "One"), await assistant(daemon)
    api = daemon.sdk.beta.threads.runs
    await api.create_and_poll(thread_id=thread_id, assistant_id=assistant_id)
    await api.create_and_poll(
        thread_id=thread_id,
        assistant_id=assistant_id,
        additional_messages=[{"role": "user", "content": "Two"}],
    )
    first, second = (prompt_of(each).messages for each in daemon.engine.requests)
    assert second == (*first, Message("assistant", "Hello"), Message("user", "Two"))


async def test_A16_a_backend_hears_which_thread_it_is(daemon: Assistants) -> None:
    thread_id = await thread(daemon)
    await daemon.sdk.beta.threads.runs.create_and_poll(
        thread_id=thread_id, assistant_id=await assistant(daemon)
    )
    assert daemon.engine.requests[0].thread_id == thread_id


async def test_A09_a_cancelled_run_keeps_what_it_said(begin: Begin) -> None:
    daemon = begin(FakeEngine())
    thread_id, assistant_id = await thread(daemon), await assistant(daemon)
    request = AsgiRequest(f"/v1/threads/{thread_id}/runs", {"assistant_id": assistant_id, "stream": True})
    streaming = request.start(daemon.app)
    await daemon.engine.submitted.wait()
    daemon.engine.streams[0].put(TokenDelta("Half"))
    await request.until(b"thread.message.delta")
    api = daemon.sdk.beta.threads.runs
    run = (await api.list(thread_id)).data[0]
    assert run.status == "in_progress"
    assert (await api.cancel(run.id, thread_id=thread_id)).status == "cancelling"
    await streaming
    assert daemon.engine.aborted == [0]
    names = [line for line in request.content.decode().splitlines() if line.startswith("event: ")]
    assert [name.removeprefix("event: thread.") for name in names[-5:]] == [
        "run.cancelling", "message.incomplete", "run.step.cancelled", "run.cancelled", "event: done",
    ]  # fmt: skip
    assert (await api.retrieve(run.id, thread_id=thread_id)).status == "cancelled"
    message = (await daemon.sdk.beta.threads.messages.list(thread_id)).data[0]
    assert (message.status, message.content[0].to_dict()["text"]) == (
        "incomplete",
        {"value": "Half", "annotations": []},
    )
    assert message.incomplete_details is not None
    assert message.incomplete_details.reason == "run_cancelled"
    with pytest.raises(openai.BadRequestError, match=r"Cannot cancel run with status 'cancelled'\."):
        await api.cancel(run.id, thread_id=thread_id)


async def required(daemon: Assistants, thread_id: str) -> Run:
    run = await daemon.sdk.beta.threads.runs.create_and_poll(
        thread_id=thread_id, assistant_id=await assistant(daemon, tools=[TOOL])
    )
    assert run.status == "requires_action"
    return run


def outputs_of(run: Run, text: str = "22 degrees") -> Any:
    assert run.required_action is not None
    calls = run.required_action.submit_tool_outputs.tool_calls
    return [{"tool_call_id": call.id, "output": text} for call in calls]


async def test_A10_calls_wait_for_their_outputs_by_poll(begin: Begin) -> None:
    daemon = begin(FakeEngine(script=in_turn(says(CALL), says(CALL), says("Warm"))))
    api, thread_id = daemon.sdk.beta.threads.runs, await thread(daemon)
    run = await required(daemon, thread_id)
    for _ in range(2):  # rounds
        with pytest.raises(openai.BadRequestError) as wrong:
            await api.submit_tool_outputs(
                run.id,
                thread_id=thread_id,
                tool_outputs=[*outputs_of(run), {"tool_call_id": "call_x", "output": ""}],
            )
        call = outputs_of(run)[0]["tool_call_id"]
        assert (
            f"Expected tool outputs for call_ids ['{call}'], got ['{call}', 'call_x']" in wrong.value.message
        )
        run = await api.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=thread_id, tool_outputs=outputs_of(run)
        )
    assert run.status == "completed"
    assert run.usage is not None
    assert run.usage.total_tokens == 12  # of all three turns
    turns = prompt_of(daemon.engine.requests[-1]).messages
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant", "tool"]
    assert turns[2].content == "22 degrees"
    steps = (await api.steps.list(run.id, thread_id=thread_id, order="asc")).data
    assert [(step.type, step.status) for step in steps] == [
        ("tool_calls", "completed"), ("tool_calls", "completed"), ("message_creation", "completed"),
    ]  # fmt: skip
    with pytest.raises(
        openai.BadRequestError, match=r'Runs in status "completed" do not accept tool outputs\.'
    ):
        await api.submit_tool_outputs(run.id, thread_id=thread_id, tool_outputs=[])


async def test_A10_calls_wait_for_their_outputs_by_stream(begin: Begin) -> None:
    daemon = begin(FakeEngine(script=in_turn(says(CALL), says(CALL), says("Warm"))))
    api, thread_id = daemon.sdk.beta.threads.runs, await thread(daemon)
    assistant_id = await assistant(daemon, tools=[TOOL])
    async with api.stream(thread_id=thread_id, assistant_id=assistant_id) as first:
        names = [event.event async for event in first]
        run = await first.get_final_run()
    assert names[:5] == [
        "thread.run.created", "thread.run.queued", "thread.run.in_progress", "thread.run.step.created",
        "thread.run.step.in_progress",
    ]  # fmt: skip
    assert set(names[5:-1]) == {"thread.run.step.delta"}
    assert names[-1] == "thread.run.requires_action"
    async with api.submit_tool_outputs_stream(
        run_id=run.id, thread_id=thread_id, tool_outputs=outputs_of(run)
    ) as second:
        names = [event.event async for event in second]
        run = await second.get_final_run()
    assert names[:3] == ["thread.run.step.completed", "thread.run.queued", "thread.run.in_progress"]
    assert names[-1] == "thread.run.requires_action"
    async with api.submit_tool_outputs_stream(
        run_id=run.id, thread_id=thread_id, tool_outputs=outputs_of(run)
    ) as third:
        assert "".join([text async for text in third.text_deltas]) == "Warm"


async def test_A11_nothing_else_happens_while_a_run_is_active(begin: Begin) -> None:
    daemon = begin(FakeEngine(script=says(CALL)))
    api, thread_id = daemon.sdk.beta.threads, await thread(daemon)
    run = await required(daemon, thread_id)
    with pytest.raises(openai.BadRequestError) as adding:
        await api.messages.create(thread_id, role="user", content="More")
    assert f"Can't add messages to {thread_id} while a run {run.id} is active." in adding.value.message
    assert (adding.value.type, adding.value.param, adding.value.code) == ("invalid_request_error", None, None)
    with pytest.raises(openai.BadRequestError) as another:
        await api.runs.create(thread_id, assistant_id=run.assistant_id)
    assert f"Thread {thread_id} already has an active run {run.id}." in another.value.message
    assert (await api.runs.cancel(run.id, thread_id=thread_id)).status == "cancelled"
    steps = (await api.runs.steps.list(run.id, thread_id=thread_id)).data
    assert [step.status for step in steps] == ["cancelled"]
    await api.messages.create(thread_id, role="user", content="More")


async def test_A11_a_run_expires(begin: Begin) -> None:
    daemon = begin(FakeEngine(script=says(CALL)))
    api, thread_id = daemon.sdk.beta.threads, await thread(daemon)
    run = await required(daemon, thread_id)
    assert run.expires_at == run.created_at + 600
    async with daemon.services.store.writing(None) as session:
        kept = await session.get(RUNS, run.id)
        await session.replace(RUNS, {**kept, "expires_at": 1})
    assert (await api.runs.retrieve(run.id, thread_id=thread_id)).status == "expired"
    assert [r.status for r in (await api.runs.list(thread_id)).data] == ["expired"]
    assert [s.status for s in (await api.runs.steps.list(run.id, thread_id=thread_id)).data] == ["expired"]
    with pytest.raises(
        openai.BadRequestError, match=r'Runs in status "expired" do not accept tool outputs\.'
    ):
        await api.runs.submit_tool_outputs(run.id, thread_id=thread_id, tool_outputs=outputs_of(run))
    await api.messages.create(thread_id, role="user", content="More")


async def test_A12_a_thread_and_a_run_are_made_at_once(daemon: Assistants) -> None:
    api = daemon.sdk.beta.threads
    assistant_id = await assistant(daemon)
    run = await api.create_and_run_poll(assistant_id=assistant_id, thread={"messages": [USER]})
    assert run.status == "completed"
    changed = await api.runs.update(run.id, thread_id=run.thread_id, metadata={"a": "b"})
    assert changed.metadata == {"a": "b"}
    assert (await api.runs.list(run.thread_id)).data == [changed]
    steps = (await api.runs.steps.list(run.id, thread_id=run.thread_id)).data
    assert [step.type for step in steps] == ["message_creation"]
    assert await api.runs.steps.retrieve(steps[0].id, thread_id=run.thread_id, run_id=run.id) == steps[0]
    async with api.create_and_run_stream(assistant_id=assistant_id, thread={"messages": [USER]}) as stream:
        names = [event.event async for event in stream]
    assert names[:3] == ["thread.created", "thread.run.created", "thread.run.queued"]


async def test_A13_all_is_there_after_a_restart(begin: Begin) -> None:
    first = begin()
    thread_id, assistant_id = await thread(first), await assistant(first, name="Helper")
    run = await first.sdk.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id)
    paths = [
        f"/assistants/{assistant_id}", f"/threads/{thread_id}", f"/threads/{thread_id}/messages",
        f"/threads/{thread_id}/runs", f"/threads/{thread_id}/runs/{run.id}/steps",
    ]  # fmt: skip
    before = [(await first.http.get(path)).json() for path in paths]
    await first.stop()
    second = begin()
    assert [(await second.http.get(path)).json() for path in paths] == before


async def test_A13_a_run_that_the_end_of_the_daemon_cut_off_has_failed(begin: Begin) -> None:
    first = begin(FakeEngine())
    thread_id, assistant_id = await thread(first), await assistant(first)
    run = await first.sdk.beta.threads.runs.create(thread_id, assistant_id=assistant_id)
    await first.engine.submitted.wait()
    for task in first.services.runs._tasks:  # as a kill does: nothing is kept
        task.cancel()
    await first.stop()
    second = begin()
    api = second.sdk.beta.threads
    found = await api.runs.retrieve(run.id, thread_id=thread_id)
    assert found.status == "failed"
    assert found.last_error is not None
    assert found.last_error.message == "The daemon was stopped while the run was active"
    again = await api.runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id)
    assert again.status == "completed"


async def test_a_client_that_leaves_does_not_stop_its_run(begin: Begin) -> None:
    daemon = begin(FakeEngine())
    thread_id, assistant_id = await thread(daemon), await assistant(daemon)
    request = AsgiRequest(f"/v1/threads/{thread_id}/runs", {"assistant_id": assistant_id, "stream": True})
    streaming = request.start(daemon.app)
    await request.until(b"thread.run.created")
    await daemon.engine.submitted.wait()
    request.leave()
    await streaming
    for delta in says("All ", "of it")(daemon.engine.requests[0]):
        assert not isinstance(delta, Exception)
        daemon.engine.streams[0].put(delta)
    await daemon.idle()
    assert daemon.engine.aborted == []
    message = (await daemon.sdk.beta.threads.messages.list(thread_id)).data[0]
    assert message.content[0].to_dict()["text"] == {"value": "All of it", "annotations": []}


@pytest.mark.parametrize(
    ("fields", "script", "status", "reason"),
    [
        (
            {"max_completion_tokens": 2},
            says("a", "b", finish=FinishReason.LENGTH),
            "incomplete",
            "max_completion_tokens",
        ),
        ({"tools": [{"type": "code_interpreter"}]}, says("a"), "failed", "code_interpreter"),
        ({"model": "none"}, says("a"), "failed", "none"),
    ],
)
async def test_how_a_run_ends_is_told(
    begin: Begin, fields: Any, script: Script, status: str, reason: str
) -> None:
    daemon = begin(FakeEngine(script=script))
    run = await daemon.sdk.beta.threads.runs.create_and_poll(
        thread_id=await thread(daemon), assistant_id=await assistant(daemon), **fields
    )
    assert run.status == status
    assert reason in str(run.incomplete_details or run.last_error)


async def test_a_forced_call_is_forced_once(begin: Begin) -> None:
    daemon = begin(FakeEngine(script=in_turn(says(CALL), says("Warm"))))
    api, thread_id = daemon.sdk.beta.threads.runs, await thread(daemon)
    run = await api.create_and_poll(
        thread_id=thread_id, assistant_id=await assistant(daemon, tools=[TOOL]), tool_choice="required"
    )
    await api.submit_tool_outputs_and_poll(run_id=run.id, thread_id=thread_id, tool_outputs=outputs_of(run))
    modes = [prompt_of(each).tool_use.mode for each in daemon.engine.requests]
    assert modes == [ToolMode.REQUIRED, ToolMode.AUTO]


async def test_last_messages_alone_are_read(daemon: Assistants) -> None:
    thread_id = await thread(daemon, *(f"message {n}" for n in range(30)))
    await daemon.sdk.beta.threads.runs.create_and_poll(
        thread_id=thread_id,
        assistant_id=await assistant(daemon),
        truncation_strategy={"type": "last_messages", "last_messages": 2},
    )
    turns = prompt_of(daemon.engine.requests[0]).messages
    assert [turn.content for turn in turns] == ["message 28", "message 29"]


async def test_max_prompt_tokens_leave_out_the_oldest_messages(daemon: Assistants) -> None:
    thread_id = await thread(daemon, *(f"message {n:02} " + "x" * 90 for n in range(60)))
    api, assistant_id = daemon.sdk.beta.threads.runs, await assistant(daemon)
    run = await api.create_and_poll(
        thread_id=thread_id, assistant_id=assistant_id, max_prompt_tokens=1000
    )  # a token a byte
    assert run.status == "completed"
    turns = prompt_of(daemon.engine.requests[0]).messages
    assert 4 <= len(turns) <= 9  # it begins at a landmark, which ids decide
    assert turns[-1].content.startswith("message 59")
    short = await api.create_and_poll(
        thread_id=thread_id,
        assistant_id=assistant_id,
        additional_messages=[{"role": "user", "content": "too long for that"}],
        max_prompt_tokens=10,
    )
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_prompt_tokens"


async def test_a_deleted_thread_stops_its_run(begin: Begin) -> None:
    daemon = begin(FakeEngine())
    thread_id, assistant_id = await thread(daemon), await assistant(daemon)
    await daemon.sdk.beta.threads.runs.create(thread_id, assistant_id=assistant_id)
    await daemon.engine.submitted.wait()
    await daemon.sdk.beta.threads.delete(thread_id)
    await daemon.idle()
    assert daemon.engine.aborted == [0]


async def test_two_runs_at_once_are_one(begin: Begin) -> None:
    daemon = begin(FakeEngine())
    thread_id, assistant_id = await thread(daemon), await assistant(daemon)
    api = daemon.sdk.beta.threads.runs
    answers = await asyncio.gather(
        *(api.create(thread_id, assistant_id=assistant_id) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(each, openai.BadRequestError) for each in answers) == 4
    run = next(each for each in answers if isinstance(each, Run))
    await api.cancel(run.id, thread_id=thread_id)
    await eventually(lambda: daemon.services.admission.total == 0)
    await daemon.idle()


async def test_inference_works_where_the_store_does_not(begin: Begin, tmp_path: Path) -> None:
    (tmp_path / "kolosal.db").mkdir()
    daemon = begin()
    with pytest.raises(openai.InternalServerError, match="The store cannot be used now") as caught:
        await daemon.sdk.beta.threads.create()
    assert (caught.value.status_code, caught.value.code) == (503, "store_unavailable")
    answer = await daemon.sdk.chat.completions.create(model="fake", messages=[USER])
    assert answer.choices[0].message.content == "Hello"


async def test_postgresql_keeps_the_same(begin: Begin, empty_postgres: str) -> None:
    first = begin(FakeEngine(script=in_turn(says(CALL), says("Warm"))), store_url=empty_postgres)
    thread_id, api = await thread(first), first.sdk.beta.threads
    assistant_id = await assistant(first, tools=[TOOL])
    answers = await asyncio.gather(
        *(api.runs.create(thread_id, assistant_id=assistant_id) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(each, openai.BadRequestError) for each in answers) == 4
    run = next(each for each in answers if isinstance(each, Run))
    run = await api.runs.poll(run.id, thread_id=thread_id)
    run = await api.runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=thread_id, tool_outputs=outputs_of(run)
    )
    assert run.status == "completed"
    await first.stop()
    second = begin(store_url=empty_postgres)
    api = second.sdk.beta.threads
    assert await api.runs.retrieve(run.id, thread_id=thread_id) == run
    texts = [message.content[0].to_dict() async for message in api.messages.list(thread_id, limit=1)]
    assert len(texts) == 2
    await api.delete(thread_id)
    async with second.services.store.reading(None) as session:
        assert await session.used_bytes() < 1000  # the assistant's


async def test_a_disk_that_was_full_at_the_end_of_a_run_is_tried_again(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SAVE_DELAYS_S", (0.01,))
    daemon = begin()
    thread_id, assistant_id = await thread(daemon), await assistant(daemon)
    store, attempts = daemon.services.store, 0
    writing = store.writing

    def full_twice(owner: str | None) -> Any:
        nonlocal attempts
        attempts += 1
        if 2 <= attempts <= 3:  # the run's beginning is the first
            raise StorageFull("There is no room left")
        return writing(owner)

    monkeypatch.setattr(store, "writing", full_twice)
    answer = await daemon.http.post(
        f"/threads/{thread_id}/runs", json={"assistant_id": assistant_id, "stream": True}
    )
    assert answer.text.splitlines()[-3] == "event: error"
    assert "insufficient_storage" in answer.text
    await daemon.idle()
    runs = (await daemon.sdk.beta.threads.runs.list(thread_id)).data
    assert [run.status for run in runs] == ["completed"]
    assert attempts == 4
