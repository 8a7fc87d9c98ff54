"""The official client's Assistants against a running daemon and a real model, which is stopped and killed in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.beta import FunctionToolParam

from tests.e2e.helpers import DEADLINE_S, ENGINE, Daemon, wait_until

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings(r"ignore:(deprecated|The Assistants API is deprecated.*)$:DeprecationWarning"),
]

CAPITAL = "Name the capital city of France."

WEATHER = FunctionToolParam(
    type="function",
    function={
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
)


def said(client: openai.OpenAI, thread_id: str) -> list[str]:
    """The texts of a thread, the oldest first."""
    messages = client.beta.threads.messages.list(thread_id, order="asc")
    return [part.text.value for message in messages for part in message.content if part.type == "text"]


def test_A08_a_conversation_reuses_what_was_computed(sdk: openai.OpenAI) -> None:
    assistant = sdk.beta.assistants.create(model=ENGINE, instructions="Answer briefly.", temperature=0)
    thread = sdk.beta.threads.create(messages=[{"role": "user", "content": CAPITAL}])
    first = sdk.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, max_completion_tokens=24
    )
    assert first.status in ("completed", "incomplete")
    sdk.beta.threads.messages.create(thread.id, role="user", content="Say it again.")
    with sdk.beta.threads.runs.stream(
        thread_id=thread.id, assistant_id=assistant.id, max_completion_tokens=8
    ) as stream:
        text = "".join(stream.text_deltas)
        second = stream.get_final_run()
    assert said(sdk, thread.id)[-1] == text
    assert first.usage is not None
    assert second.usage is not None
    usage: Any = second.usage.to_dict()
    assert usage["prompt_token_details"]["cached_tokens"] >= first.usage.prompt_tokens


def test_A10_two_rounds_of_calls(sdk: openai.OpenAI) -> None:
    assistant = sdk.beta.assistants.create(model=ENGINE, tools=[WEATHER], temperature=0)
    run = sdk.beta.threads.create_and_run_poll(
        assistant_id=assistant.id,
        thread={"messages": [{"role": "user", "content": "What is the weather in Paris?"}]},
        tool_choice="required",
        max_completion_tokens=200,
    )
    assert run.required_action is not None
    calls = run.required_action.submit_tool_outputs.tool_calls
    assert {call.function.name for call in calls} == {"weather"}
    outputs: Any = [{"tool_call_id": call.id, "output": "22 degrees"} for call in calls]
    with sdk.beta.threads.runs.submit_tool_outputs_stream(
        run_id=run.id, thread_id=run.thread_id, tool_outputs=outputs
    ) as stream:
        stream.until_done()
        run = stream.get_final_run()
    assert run.status in ("completed", "incomplete", "requires_action")
    steps = sdk.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc").data
    assert (steps[0].type, steps[0].status) == ("tool_calls", "completed")


def test_a_forced_search_is_made_by_a_small_model(sdk: openai.OpenAI) -> None:
    text = "The village of Ober holds its harvest festival on the ninth of September, beside the old mill."
    file = sdk.files.create(file=("ober.md", text.encode()), purpose="assistants")
    store = sdk.vector_stores.create()
    sdk.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
    assistant = sdk.beta.assistants.create(
        model=ENGINE,
        tools=[{"type": "file_search"}],
        tool_resources={"file_search": {"vector_store_ids": [store.id]}},
        temperature=0,
    )
    thread = sdk.beta.threads.create(
        messages=[{"role": "user", "content": "When does Ober hold its harvest festival?"}]
    )
    with sdk.beta.threads.runs.stream(
        thread_id=thread.id,
        assistant_id=assistant.id,
        tool_choice={"type": "file_search"},
        max_completion_tokens=200,
    ) as stream:
        stream.until_done()
        run = stream.get_final_run()
    assert run.status in ("completed", "incomplete"), run.last_error
    steps = sdk.beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc").data
    assert [step.type for step in steps] == ["tool_calls", "message_creation"]
    assert steps[0].step_details.type == "tool_calls"
    (call,) = steps[0].step_details.tool_calls
    assert call.type == "file_search"
    assert call.file_search.results is not None
    assert [result.file_id for result in call.file_search.results] == [file.id]
    sdk.vector_stores.delete(store.id)


def test_lists_of_250_in_both_directions(sdk: openai.OpenAI) -> None:
    texts = [f"message {n}" for n in range(250)]
    thread = sdk.beta.threads.create()
    for text in texts:
        sdk.beta.threads.messages.create(thread.id, role="user", content=text)
    assert said(sdk, thread.id) == texts
    newest = [message.id for message in sdk.beta.threads.messages.list(thread.id, limit=100)]
    assert len(newest) == 250
    back = sdk.beta.threads.messages.list(thread.id, before=newest[200], limit=50).data
    assert [message.id for message in back] == newest[150:200]


def test_A13_a_daemon_that_is_killed_and_stopped_has_all_again(smollm2: Path, tmp_path: Path) -> None:
    arguments = ("--port", "0", "--model", f"{ENGINE}={smollm2.absolute()}")
    first = Daemon.start(tmp_path, *arguments)
    first.wait_until_ready(ENGINE)
    with openai.OpenAI(base_url=f"{first.url}/v1", api_key="none", max_retries=0) as client:
        assistant = client.beta.assistants.create(model=ENGINE, temperature=0)
        thread = client.beta.threads.create(messages=[{"role": "user", "content": "Count to a thousand."}])
        stream = client.beta.threads.runs.create(thread.id, assistant_id=assistant.id, stream=True)
        run_id = ""
        for event in stream:
            if event.event == "thread.run.created":
                run_id = event.data.id
            if event.event == "thread.message.delta":
                break
        first.process.kill()
        first.process.wait(DEADLINE_S)
        stream.close()
    second = Daemon.start(tmp_path, *arguments)
    second.wait_until_ready(ENGINE)
    try:
        with openai.OpenAI(base_url=f"{second.url}/v1", api_key="none", max_retries=0) as client:
            run = client.beta.threads.runs.retrieve(run_id, thread_id=thread.id)
            assert run.status == "failed"
            assert run.last_error is not None
            assert run.last_error.message == "The daemon was stopped while the run was active"
            assert client.beta.assistants.retrieve(assistant.id) == assistant
            assert said(client, thread.id) == ["Count to a thousand."]
            again = client.beta.threads.runs.create_and_poll(
                thread_id=thread.id, assistant_id=assistant.id, max_completion_tokens=4
            )
            assert again.status == "incomplete"
    finally:
        assert second.stop() == 0, second.log
    wait_until(lambda: second.process.poll() is not None)
