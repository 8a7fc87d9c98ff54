"""What a run reads besides its thread: attached files, and what searches of its vector stores find, which its answer cites."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from openai.types.beta.threads import Run, Text

from kolosal.chat.formats import ToolFormat
from kolosal.engines.ipc.calls import Embed
from kolosal.schema import ChatPrompt, Message, TextPrompt, ToolMode
from tests.engines.helpers import INFO
from tests.fakes import FakeEngine, Script, says
from tests.routes.assistants.conftest import Assistants, Begin
from tests.routes.documents.conftest import by_topic
from tests.routes.openai.responses.asking import CALL, WEATHER, in_turn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CATS = b"A cat sleeps sixteen hours a day."
DOGS = b"A dog barks at strangers."
ASKED = "How long does a cat sleep?"
CONTENT: Any = "step_details.tool_calls[*].file_search.results[*].content"

SEARCH: Any = {"type": "file_search"}
FUNCTION: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER["parameters"]}}


def searches(*queries: str) -> str:
    """Calls of the tool as a model writes them."""
    calls = ({"name": "file_search", "arguments": {"query": query} if query else {}} for query in queries)
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


def model(*scripts: Script, knows_tools: bool = True) -> FakeEngine:
    """A model that says this turn by turn, and embeds by the topics of a text."""
    engine = FakeEngine(script=in_turn(*scripts))
    engine.answer = by_topic
    tool_format = ToolFormat.HERMES if knows_tools else ToolFormat.GENERIC
    engine.info = replace(INFO, n_ctx=4096, n_ctx_train=4096, tool_format=tool_format)
    return engine


def prompt_of(engine: FakeEngine, index: int = -1) -> ChatPrompt:
    prompt = engine.requests[index].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def looked_for(engine: FakeEngine) -> list[str]:
    """What was embedded, but for the files."""
    inputs = (each for call in engine.calls if isinstance(call, Embed) for each in call.inputs)
    texts = [each.text for each in inputs if isinstance(each, TextPrompt)]
    return [text for text in texts if text.encode() not in (CATS, DOGS)]


async def upload(here: Assistants, content: bytes, name: str = "cats.md") -> str:
    return (await here.sdk.files.create(file=(name, content), purpose="assistants")).id


async def library(here: Assistants) -> tuple[Any, list[str]]:
    """What assistant a vector store with two files makes, and their ids."""
    ids = [await upload(here, CATS), await upload(here, DOGS, "dogs.md")]
    store = await here.sdk.vector_stores.create()
    await here.sdk.vector_stores.file_batches.create_and_poll(store.id, file_ids=ids)
    await here.services.indexer.close()
    return {"file_search": {"vector_store_ids": [store.id]}}, ids


async def ask(here: Assistants, resources: Any, *, tools: Any = (SEARCH,), **fields: Any) -> Run:
    """A run over a new thread."""
    assistant = await here.sdk.beta.assistants.create(
        model="fake", tools=list(tools), tool_resources=resources
    )
    thread = await here.sdk.beta.threads.create(messages=[{"role": "user", "content": ASKED}])
    return await here.sdk.beta.threads.runs.create_and_poll(
        thread_id=thread.id, assistant_id=assistant.id, **fields
    )


async def answer_of(here: Assistants, run: Run) -> Text:
    assert run.status == "completed", run.last_error
    (message, *_) = [each async for each in here.sdk.beta.threads.messages.list(run.thread_id)]
    (part,) = message.content
    assert part.type == "text"
    return part.text


async def searches_of(here: Assistants, run: Run) -> list[Any]:
    """The searches of a run's steps, with the texts."""
    steps = here.sdk.beta.threads.runs.steps.list(
        run.id, thread_id=run.thread_id, order="asc", include=[CONTENT]
    )
    return [
        call.file_search
        async for step in steps
        if step.step_details.type == "tool_calls"
        for call in step.step_details.tool_calls
        if call.type == "file_search"
    ]


async def test_A14_an_attached_file_is_read_with_its_message(begin: Begin) -> None:
    here = begin()
    file_id = await upload(here, CATS)
    attachments = [{"file_id": file_id, "tools": [{"type": "file_search"}]}]
    thread = await here.sdk.beta.threads.create(
        messages=[{"role": "user", "content": "Sum it up.", "attachments": attachments}]  # type: ignore[typeddict-item]
    )
    assistant = await here.sdk.beta.assistants.create(model="fake")
    run = await here.sdk.beta.threads.runs.create_and_poll(thread_id=thread.id, assistant_id=assistant.id)

    assert run.status == "completed"
    said = prompt_of(here.engine).messages[-1].content
    assert said == f"Sum it up.\nThe attached file {file_id}:\n{CATS.decode()}"
    kept = [each async for each in here.sdk.beta.threads.messages.list(thread.id, order="asc")]
    assert len(kept[0].content) == 1


async def test_model_searches_with_words_of_its_own(begin: Begin) -> None:
    here = begin(model(says(searches("cat naps")), says("Sixteen hours【0†", "cats.md】.")))
    resources, (cats, _) = await library(here)
    run = await ask(here, resources)
    text = await answer_of(here, run)

    assert looked_for(here.engine) == ["cat naps"]
    assert [tool.name for tool in prompt_of(here.engine, 0).tool_use.tools] == ["file_search"]
    asked, called, told = prompt_of(here.engine).messages
    assert asked == Message("user", ASKED)
    assert [(call.name, call.arguments) for call in called.tool_calls] == [
        ("file_search", '{"query": "cat naps"}')
    ]
    assert told.role == "tool"
    assert "【0†cats.md】\nA cat sleeps sixteen hours a day.\n\n【1†dogs.md】" in told.content
    (cited,) = text.annotations
    assert cited.type == "file_citation"
    assert cited.file_citation.file_id == cats
    assert text.value[cited.start_index : cited.end_index] == cited.text == "【0†cats.md】"
    assert run.usage is not None
    assert run.usage.completion_tokens == 3  # of both turns


async def test_step_of_a_search_says_what_was_found(begin: Begin) -> None:
    tool = {"type": "file_search", "file_search": {"max_num_results": 1}}
    here = begin(model(says(searches("cat")), says("Long.")))
    resources, (cats, _) = await library(here)
    run = await ask(here, resources, tools=[tool])

    steps = (
        await here.http.get(f"/threads/{run.thread_id}/runs/{run.id}/steps", params={"order": "asc"})
    ).json()["data"]
    assert [(step["type"], step["status"]) for step in steps] == [
        ("tool_calls", "completed"), ("message_creation", "completed"),
    ]  # fmt: skip
    (call,) = steps[0]["step_details"]["tool_calls"]
    assert call["file_search"] == {
        "query": "cat",
        "ranking_options": {"ranker": "auto", "score_threshold": 0.0},
        "results": [{"file_id": cats, "file_name": "cats.md", "score": 1.0}],
    }
    shown = await here.sdk.beta.threads.runs.steps.retrieve(
        steps[0]["id"], thread_id=run.thread_id, run_id=run.id, include=[CONTENT]
    )
    details: Any = shown.step_details
    (result,) = details.tool_calls[0].file_search.results
    assert result.content[0].text == CATS.decode()
    other = await here.http.get(f"/threads/{run.thread_id}/runs/{run.id}/steps?include[]=all")
    assert (other.status_code, other.json()["error"]["param"]) == (400, "include")


async def test_score_threshold_leaves_results_out(begin: Begin) -> None:
    tool = {"type": "file_search", "file_search": {"ranking_options": {"score_threshold": 0.5}}}
    here = begin(model(says(searches("dog")), says("It barks.")))
    resources, (_, dogs) = await library(here)
    (search,) = await searches_of(here, await ask(here, resources, tools=[tool]))

    assert [result.file_id for result in search.results] == [dogs]
    assert search.ranking_options.score_threshold == 0.5


async def test_stream_tells_of_searches_and_citations(begin: Begin) -> None:
    here = begin(model(says(searches("cat")), says("Long【0", "†cats.md", "】!")))
    resources, (cats, _) = await library(here)
    assistant = await here.sdk.beta.assistants.create(model="fake", tools=[SEARCH], tool_resources=resources)
    thread: Any = {"messages": [{"role": "user", "content": ASKED}]}
    async with here.sdk.beta.threads.create_and_run_stream(
        assistant_id=assistant.id, thread=thread
    ) as stream:
        events: list[Any] = [event async for event in stream]
        (message,) = await stream.get_final_messages()

    names = [event.event.removeprefix("thread.") for event in events]
    assert [*dict.fromkeys(names)] == [
        "created", "run.created", "run.queued", "run.in_progress", "run.step.created", "run.step.in_progress",
        "run.step.delta", "run.step.completed", "message.created", "message.in_progress", "message.delta",
        "message.completed", "run.completed",
    ]  # fmt: skip
    (call,) = events[7].data.step_details.tool_calls
    assert [result.file_name for result in call.file_search.results] == ["cats.md", "dogs.md"]
    assert call.file_search.results[0].content is None
    pieces: Any = [
        event.data.delta.content[0].text for event in events if event.event == "thread.message.delta"
    ]
    assert "".join(piece.value for piece in pieces) == "Long【0†cats.md】!"
    ((cited, value),) = [(each, piece.value) for piece in pieces for each in piece.annotations]
    assert cited.text in value
    assert (cited.index, cited.file_citation.file_id) == (0, cats)
    assert (cited.start_index, cited.end_index) == (4, 15)
    text: Any = message.content[0]
    assert text.text.value == "Long【0†cats.md】!"


async def test_markers_count_on_and_searches_are_bounded(begin: Begin) -> None:
    engine = model(
        says(searches("cat", "dog")), says(searches("dog")), says(searches("cat", "dog")), says("【2†x】")
    )
    here = begin(engine)
    resources, (_, dogs) = await library(here)
    run = await ask(here, resources)

    assert [tool.name for tool in prompt_of(engine, 2).tool_use.tools] == ["file_search"]
    assert prompt_of(engine, 3).tool_use.tools == ()
    assert looked_for(engine) == ["cat", "dog", "dog", "cat"]
    assert [len(search.results) for search in await searches_of(here, run)][-1] == 0
    (cited,) = (await answer_of(here, run)).annotations
    assert cited.to_dict()["file_citation"] == {"file_id": dogs}  # the first result of the second search


async def test_call_that_says_nothing_looks_for_what_was_asked(begin: Begin) -> None:
    here = begin(model(says(searches("")), says("Long.")))
    resources, _ = await library(here)
    await ask(here, resources)

    assert looked_for(here.engine) == [ASKED]


async def test_search_beside_a_function_waits_for_the_client_and_is_read_again(begin: Begin) -> None:
    here = begin(model(says(f"{searches('cat')}\n{CALL}"), says("Both.")))
    resources, _ = await library(here)
    run = await ask(here, resources, tools=[FUNCTION, SEARCH])
    assert run.status == "requires_action"
    assert run.required_action is not None
    (call,) = run.required_action.submit_tool_outputs.tool_calls
    run = await here.sdk.beta.threads.runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": "22"}]
    )
    assert run.status == "completed"
    told = [turn.content for turn in prompt_of(here.engine).messages if turn.role == "tool"]
    assert "A cat sleeps" in told[0]
    assert told[1] == "22"

    again = await here.sdk.beta.threads.runs.create_and_poll(
        thread_id=run.thread_id, assistant_id=run.assistant_id
    )
    assert again.status == "completed"
    turns = prompt_of(here.engine).messages  # what another run found is not read again
    assert [turn.content for turn in turns if turn.role == "tool"] == ["22"]


async def test_search_is_made_for_a_model_that_knows_no_tools(begin: Begin) -> None:
    here = begin(model(says(CALL), says("A cat sleeps sixteen hours."), knows_tools=False))
    resources, (cats, _) = await library(here)
    run = await ask(here, resources, tools=[FUNCTION, SEARCH])
    assert run.required_action is not None
    (call,) = run.required_action.submit_tool_outputs.tool_calls
    run = await here.sdk.beta.threads.runs.submit_tool_outputs_and_poll(
        run_id=run.id, thread_id=run.thread_id, tool_outputs=[{"tool_call_id": call.id, "output": "22"}]
    )
    text = await answer_of(here, run)

    assert looked_for(here.engine) == [ASKED]
    assert [search.query for search in await searches_of(here, run)] == [ASKED]
    for index in range(2):
        prompt = prompt_of(here.engine, index)
        assert [tool.name for tool in prompt.tool_use.tools] == ["weather"]
        assert prompt.messages[0].content.startswith(f"{ASKED}\nAnswer with these results")
    assert text.value == "A cat sleeps sixteen hours. 【0†cats.md】"
    (cited,) = text.annotations
    assert cited.to_dict()["file_citation"] == {"file_id": cats}


@pytest.mark.parametrize("knows_tools", [True, False])
@pytest.mark.parametrize("choice", [SEARCH, "required"])
async def test_forced_search_is_made_by_every_model(begin: Begin, choice: Any, knows_tools: bool) -> None:
    here = begin(model(says(searches("cat naps")), says("Long."), knows_tools=knows_tools))
    resources, _ = await library(here)
    run = await ask(here, resources, tool_choice=choice)

    assert run.status == "completed"
    assert looked_for(here.engine) == ["cat naps"]
    first, second = (prompt_of(here.engine, index).tool_use for index in range(2))
    assert (first.mode, [tool.name for tool in first.callable]) == (ToolMode.REQUIRED, ["file_search"])
    assert [tool.name for tool in second.callable] == (["file_search"] if knows_tools else [])
    assert any("A cat sleeps" in turn.content for turn in prompt_of(here.engine).messages)


async def test_nothing_is_searched_where_no_tool_may_be_called(begin: Begin) -> None:
    here = begin(model(says("Hello"), knows_tools=False))
    resources, _ = await library(here)
    await ask(here, resources, tool_choice="none")

    assert prompt_of(here.engine).messages == (Message("user", ASKED),)


@pytest.mark.parametrize(
    ("stores", "choice", "message"),
    [
        (["vs_none"], "auto", "No vector store found with id 'vs_none'."),
        ([], SEARCH, "tool_choice asks for file_search, but there is nothing to search"),
    ],
)
async def test_search_that_cannot_be_made_fails_the_run(
    begin: Begin, stores: list[str], choice: Any, message: str
) -> None:
    here = begin(model(says(searches("cat"))))
    run = await ask(here, {"file_search": {"vector_store_ids": stores}}, tool_choice=choice)

    assert run.status == "failed"
    assert run.last_error is not None
    assert message in run.last_error.message
    steps = [each async for each in here.sdk.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id)]
    failed = [(step.status, step.last_error and step.last_error.message) for step in steps]
    assert failed == [("failed", run.last_error.message)] * len(stores)


async def test_function_of_the_name_of_the_search_is_refused(begin: Begin) -> None:
    function = {"type": "function", "function": {"name": "file_search"}}
    answer = await begin().http.post("/assistants", json={"model": "fake", "tools": [function, SEARCH]})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "tools has two tools of the name 'file_search'"
