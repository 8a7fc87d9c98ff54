"""`create_message`: conversations in which the client has tools."""

from __future__ import annotations

from typing import Any

import pytest

from kolosal.schema import ToolMode
from tests.fakes import FakeEngine, says
from tests.routes.jsonrpc.calling import (
    CALL,
    CALLED,
    NATIVE_CALL,
    WEATHER,
    calls_tools,
    create,
    last_of,
    may_call_tools,
    post,
    prompt_of,
    request,
    turn,
    turns_of,
)

ASKED = [turn("user", "Oslo?"), turn("assistant", tool_calls=[CALLED])]


async def test_R01_a_message_gets_a_final_text_and_the_whole_history() -> None:
    engine = FakeEngine(script=says("Hel", "lo!"))
    result = await create(engine, message="Hi")
    assert result == {
        "type": "final_text",
        "content": "Hello!",
        "history": [turn("user", "Hi"), turn("assistant", "Hello!")],
        "iteration_count": 0,
    }
    sampling = engine.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (4096, 0.6, 1)


async def test_sampling_is_as_asked() -> None:
    engine = FakeEngine(script=says("a"))
    await create(engine, message="Hi", max_new_tokens=7, temperature=1.5, top_p=0.5, seed=3, stop="x")
    await create(engine, message="Hi", do_sample=False, temperature=1.5, stop=["a", "b"])
    first, second = (each.sampling for each in engine.requests)
    assert (first.max_tokens, first.temperature, first.top_p) == (7, 1.5, 0.5)
    assert (first.seed, first.stop) == (3, ("x",))
    assert (second.temperature, second.stop) == (0, ("a", "b"))


async def test_unknown_parameters_are_ignored_and_null_is_as_good_as_nothing() -> None:
    result = await create(
        FakeEngine(script=says("a")), message="Hi", surprise=1, history=None, tools=None, iteration_count=None
    )
    assert result["content"] == "a"


@pytest.mark.parametrize("said", [
    CALL, f"```json\n{CALL}\n```", f"  \n{CALL} and more", f"<think>hm</think>{CALL}", NATIVE_CALL,
    f"<tool_call>{CALL}</tool_call>", '{"name": "weather", "arguments": {"city": "Oslo"}}', f"{CALL}{CALL}",
    f"{CALL}\n" + CALL.replace("Oslo", "Rome"),
])  # fmt: skip
async def test_R02_a_call_is_given_to_the_client(said: str) -> None:
    result = await create(FakeEngine(script=says(said)), message="Oslo?", tools=[WEATHER])
    assert result == {"type": "tool_calls", "content": [CALLED], "history": ASKED, "iteration_count": 0}


async def test_R02_several_calls_in_the_models_own_format_are_given_together() -> None:
    rome = NATIVE_CALL.replace("Oslo", "Rome")
    result = await create(FakeEngine(script=says(f"{NATIVE_CALL}\n{rome}")), message="?", tools=[WEATHER])
    assert [call["parameters"]["city"] for call in result["content"]] == ["Oslo", "Rome"]


async def test_R02_results_go_on_with_the_conversation() -> None:
    engine = FakeEngine(script=says("It is sunny."))
    result = await create(
        engine, history=ASKED, tools=[WEATHER], iteration_count=3,
        tool_results=[{"toolName": "weather", "result": {"sky": "clear"}}],
    )  # fmt: skip
    assert (result["type"], result["iteration_count"]) == ("final_text", 4)
    answered = turn("tool", tool_name="weather", tool_result={"sky": "clear"})
    assert result["history"] == [*ASKED, answered, turn("assistant", "It is sunny.")]
    messages = prompt_of(engine.requests[0]).messages
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert messages[1].tool_calls[0].id == messages[2].tool_call_id
    assert (messages[2].name, messages[2].content) == ("weather", '{"sky":"clear"}')


@pytest.mark.parametrize(("result", "content"), [
    ({"tool_name": "weather", "result": "dry"}, "dry"),
    ({"toolName": "weather", "result": None, "error": "no network"}, "Error: no network"),
    ({"toolName": "weather", "result": "half", "error": "cut off"}, "Error: cut off\nhalf"),
    ({"toolName": "weather", "result": [1, None]}, "[1,null]"), ({"toolName": "weather"}, ""),
])  # fmt: skip
async def test_results_are_told_to_the_model(result: dict[str, Any], content: str) -> None:
    engine = FakeEngine(script=says("a"))
    await create(engine, history=ASKED, tool_results=[result])
    assert last_of(engine.requests[0]).content == content


async def test_results_answer_the_calls_of_their_tool_in_order() -> None:
    calls = [CALLED, {"tool": "time", "parameters": {}}, {"tool": "weather", "parameters": {"city": "Rome"}}]
    engine = FakeEngine(script=says("a"))
    results = [{"toolName": name, "result": text} for name, text in
               (("time", "noon"), ("weather", "rain"), ("weather", "sun"), ("radio", "noise"))]  # fmt: skip
    await create(
        engine, history=[turn("user", "?"), turn("assistant", tool_calls=calls)], tool_results=results
    )
    messages = prompt_of(engine.requests[0]).messages
    ids = [call.id for call in messages[1].tool_calls]
    assert [message.tool_call_id for message in messages[2:5]] == [ids[1], ids[0], ids[2]]


async def test_a_message_is_added_unless_the_user_said_it_last() -> None:
    engine = FakeEngine(script=says("a"))
    history = [turn("user", "One"), turn("assistant", "1"), turn("user", "Two")]
    for message in ("Two", "Three", None):
        await create(engine, history=history, message=message)
    said = [[text for _, text in turns_of(each)] for each in engine.requests]
    assert said == [["One", "1", "Two"], ["One", "1", "Two", "Three"], ["One", "1", "Two"]]


async def test_results_come_before_a_new_message() -> None:
    engine = FakeEngine(script=says("a"))
    results = [{"toolName": "weather", "result": "rain"}]
    await create(engine, history=ASKED, tool_results=results, message="And Rome?")
    await create(engine, message="Oslo?", tool_results=results)
    assert turns_of(engine.requests[0])[-2:] == [("tool", "rain"), ("user", "And Rome?")]
    assert turns_of(engine.requests[1]) == [("user", "Oslo?"), ("tool", "rain")]


@pytest.mark.parametrize("said", [CALL, NATIVE_CALL])
async def test_R06_a_repeated_call_is_blocked_and_prose_returned(said: str) -> None:
    engine = FakeEngine(script=calls_tools(said))
    result = await create(
        engine, history=ASKED, tools=[WEATHER], tool_results=[{"toolName": "weather", "result": "rain"}]
    )
    assert (result["type"], result["content"]) == ("final_text", "It rains.")
    assert [may_call_tools(each) for each in engine.requests] == [True, False]
    assert turns_of(engine.requests[1])[0][0] == "system"


async def test_R06_the_same_tool_may_be_asked_something_else_or_again_later() -> None:
    results = [{"toolName": "weather", "result": "rain"}]
    other = CALL.replace("Oslo", "Rome")
    engine = FakeEngine(script=says(other))
    result = await create(engine, history=ASKED, tools=[WEATHER], tool_results=results)
    assert result["type"] == "tool_calls"
    engine = FakeEngine(script=says(CALL))
    result = await create(
        engine, history=ASKED, tools=[WEATHER], tool_results=results, message="And now? It is another day."
    )
    assert result["type"] == "tool_calls"


@pytest.mark.parametrize("otherwise", ["It rains.", CALL, NATIVE_CALL])
async def test_R06_the_last_iteration_forces_a_final_text(otherwise: str) -> None:
    engine = FakeEngine(script=calls_tools(CALL, otherwise=otherwise))
    results = [{"toolName": "weather", "result": "rain"}]
    asked = {"history": [turn("system", "Be kind."), turn("user", "?")], "tools": [WEATHER]}
    result = await create(engine, **asked, tool_results=results, iteration_count=28)
    assert result["type"] == "tool_calls"
    result = await create(engine, **asked, tool_results=results, iteration_count=29)
    assert (result["type"], result["iteration_count"]) == ("final_text", 30)
    assert result["content"] == ("It rains." if otherwise == "It rains." else "")
    assert turns_of(engine.requests[1])[0][1].startswith("Be kind.\n\nThe tools cannot be called any more")


async def test_R06_how_many_iterations_there_may_be_is_a_setting() -> None:
    asked = request(message="?", tools=[WEATHER], iteration_count=2)
    response = await post(FakeEngine(script=calls_tools(CALL)), asked, rpc_max_iterations=2)
    assert response.json()["result"]["content"] == "It rains."


@pytest.mark.parametrize("said", [
    '{"tool": "nope", "parameters": {}}', '{"tool": "weather", "parameters": {}}', '{"tool": "weather"}',
    '{"tool": "weather", "parameters": "Oslo"}', '{"tool": "weather", "parameters": {"city": "Oslo"}', "{oops", "```python\nx\n```",
    "```", "<tool_call>hm", '{"a": {"b": [1, "}"]}}', NATIVE_CALL.replace("weather", "nope"),
])  # fmt: skip
async def test_R07_what_is_no_call_of_an_offered_tool_is_text(said: str) -> None:
    result = await create(FakeEngine(script=says(said)), message="Oslo?", tools=[WEATHER])
    assert (result["type"], result["content"]) == ("final_text", said)


@pytest.mark.parametrize("said", [
    NATIVE_CALL.replace("city", "town"), NATIVE_CALL[:50],
])  # fmt: skip
async def test_R07_a_call_in_the_models_own_format_that_cannot_be_made_gives_prose(said: str) -> None:
    result = await create(FakeEngine(script=calls_tools(said)), message="Oslo?", tools=[WEATHER])
    assert (result["type"], result["content"]) == ("final_text", "It rains.")


async def test_without_tools_a_call_is_text() -> None:
    result = await create(FakeEngine(script=says(CALL)), message="Oslo?")
    assert (result["type"], result["content"]) == ("final_text", CALL)


@pytest.mark.parametrize("pieces", [
    ("<think>Hm.</think>Hello",), ("<th", "ink>Hm", ".</thi", "nk>\n\nHel", "lo"), ("Hm.</think>\nHello",),
    ("\n<think></think>\n<think>x</think> Hello ",), ("Hel<think>{</think>lo",),
])  # fmt: skip
@pytest.mark.parametrize("tools", [[], [WEATHER]])
async def test_R10_thoughts_are_no_part_of_a_final_text(
    pieces: tuple[str, ...], tools: list[dict[str, Any]]
) -> None:
    result = await create(FakeEngine(script=says(*pieces)), message="Hi", tools=tools)
    assert result["content"] == "Hello"
    assert result["history"][-1] == turn("assistant", "Hello")


@pytest.mark.parametrize(
    ("said", "content"), [("<think>cut off", ""), ("Write <think> first", "Write <think> first")]
)
async def test_thoughts_without_an_end_were_cut_off_or_are_none(said: str, content: str) -> None:
    result = await create(FakeEngine(script=says(said)), message="Hi")
    assert result["content"] == content


@pytest.mark.parametrize("offered", [
    WEATHER, {"name": "weather", "inputSchema": WEATHER["parameters"], "parameters": None},
    {"name": "weather", "input_schema": WEATHER["parameters"] | {"$schema": "x"}}, {"type": "function", "function": WEATHER},
])  # fmt: skip
async def test_tools_may_be_written_in_several_ways(offered: dict[str, Any]) -> None:
    engine = FakeEngine(script=says(CALL))
    result = await create(engine, message="Oslo?", tools=[offered])
    assert result["content"] == [CALLED]
    (tool,) = prompt_of(engine.requests[0]).tool_use.tools
    assert (tool.name, tool.parameters) == ("weather", WEATHER["parameters"])


async def test_a_forced_call_is_forced_once_and_none_hides_the_tools() -> None:
    engine = FakeEngine(script=says("a"))
    asked = {"tools": [WEATHER], "history": ASKED}
    await create(engine, **asked, message="And Rome?", tool_choice="required")
    results = [{"toolName": "weather", "result": "rain"}]
    await create(engine, **asked, tool_results=results, tool_choice="required")
    await create(engine, **asked, message="And Rome?", tool_choice="none")
    uses = [prompt_of(each).tool_use for each in engine.requests]
    assert [use.mode for use in uses[:2]] == [ToolMode.REQUIRED, ToolMode.AUTO]
    assert uses[2].callable == ()
