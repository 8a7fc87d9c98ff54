"""`generate`, `tool_result` and `cancel` over a session's connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from kolosal.config.sessions import SessionSettings
from kolosal.errors import EngineDied, KolosalError, LoadFailed, QueueFull
from kolosal.schema import FinishReason, GenerateRequest, TokenDelta, Usage
from tests.fakes import FakeEngine, Script, app_with, eventually, says
from tests.routes.jsonrpc.calling import (
    CALL,
    CALLED,
    NATIVE_CALL,
    WEATHER,
    calls_tools,
    last_of,
    may_call_tools,
    prompt_of,
    turn,
    turns_of,
)
from tests.routes.websocket.client import Socket, chunks, connected, new_session, session

TIME: dict[str, Any] = {"name": "time", "description": "The time", "parameters": {"type": "object"}}


def calls_once(*pieces: str, then: str = "It rains.") -> Script:
    """A model that says these pieces until it has a result, and then something else."""

    def script(request: GenerateRequest) -> Iterable[TokenDelta]:
        return says(*((then,) if last_of(request).role == "tool" else pieces))(request)  # type: ignore[return-value]

    return script


def counts_up(request: GenerateRequest) -> Iterable[TokenDelta]:
    """A model that asks for another city each time."""
    n = sum(message.role == "tool" for message in prompt_of(request).messages)
    text = CALL.replace("Oslo", f"City {n}") if may_call_tools(request) else "Enough."
    yield TokenDelta(text)
    yield TokenDelta("", (), FinishReason.STOP, Usage(1, 1))


async def called(socket: Socket) -> list[dict[str, Any]]:
    """The calls of the next notification, without their ids."""
    method, params = await socket.notification()
    assert method == "function_call_request"
    assert params.keys() == {"tool_calls"}
    assert all(call.pop("id") for call in params["tool_calls"])
    calls: list[dict[str, Any]] = params["tool_calls"]
    return calls


async def test_W02_the_answer_comes_first_then_chunks_then_the_text_then_one_end() -> None:
    engine = FakeEngine(script=says("Grü", "ße", " 🎉"))
    async with session(engine) as socket:
        await socket.generate(message="Hi")
        told = await socket.until_end()
    assert told[:-1] == [("text_chunk", {"chunk": piece}) for piece in ("Grü", "ße", " 🎉")]
    assert told[-1] == ("final_text", {"final_text": "Grüße 🎉"})
    sampling = engine.requests[0].sampling
    assert (sampling.max_tokens, sampling.temperature) == (4096, 0.6)


async def test_W02_every_task_has_an_id_of_its_own() -> None:
    async with session(FakeEngine(script=says("a"))) as socket:
        ids = set()
        for _ in range(3):
            await socket.generate(message="Hi")
            while (await socket.notification())[0] != "end":
                ids.add(socket.task_id)
    assert len(ids) == 3


async def test_W02_thoughts_are_left_out() -> None:
    async with session(FakeEngine(script=says("<thi", "nk>a", "</think>", "\n\nHi"))) as socket:
        await socket.generate(message="Hi")
        assert chunks(await socket.until_end()) == "Hi"


async def test_W03_a_call_waits_for_its_result_and_the_task_goes_on() -> None:
    engine = FakeEngine(script=calls_once("Let me see.", CALL))
    async with session(engine, tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?", seed=5, max_new_tokens=9)
        assert await socket.notification() == ("text_chunk", {"chunk": "Let me see."})
        assert await called(socket) == [CALLED]
        task_id = socket.task_id
        result = {"tool_name": "weather", "result": {"sky": "rain"}, "isError": False}
        answer = await socket.ask("tool_result", session_id="x", task_id=task_id, results=[result])
        assert answer == {"result": {"status": "received"}}
        told = await socket.until_end()
        assert told == [
            ("text_chunk", {"chunk": "It rains."}),
            ("final_text", {"final_text": "It rains."}),
        ]
        assert socket.task_id == task_id
    first, second = engine.requests
    assert first.sampling == second.sampling
    assert prompt_of(first).tool_use == prompt_of(second).tool_use
    assert turns_of(second) == [("user", "Oslo?"), ("assistant", "Let me see."), ("tool", '{"sky":"rain"}')]
    assert prompt_of(second).messages[1].tool_calls[0].name == "weather"


async def test_W03_several_calls_wait_for_all_results() -> None:
    second = NATIVE_CALL.replace("Oslo", "Rome")
    third = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
    engine = FakeEngine(script=calls_once(f"{NATIVE_CALL}\n{second}\n{third}"))
    async with session(engine, tools=[WEATHER, TIME]) as socket:
        await socket.generate(message="?")
        _, params = await socket.notification()
        ids = [call["id"] for call in params["tool_calls"]]
        assert len({*ids}) == 3
        for results in (
            [{"tool_name": "time", "result": "noon"}],
            [{"tool_call_id": ids[1], "result": "sun"}],
            [{"tool_name": "weather", "result": "rain"}],
        ):
            answer = await socket.ask("tool_result", task_id=socket.task_id, results=results)
            assert answer["result"]["status"] == "received"
        assert (await socket.until_end())[-1][0] == "final_text"
    assert [text for role, text in turns_of(engine.requests[1]) if role == "tool"] == ["rain", "sun", "noon"]


@pytest.mark.parametrize(("result", "content"), [
    ({"isError": True, "error_message": "no network"}, "Error: no network"), ({"isError": True}, "Error: the tool failed"),
    ({"isError": True, "error_message": "late", "result": "old"}, "Error: late\nold"),
    ({"isError": False, "error_message": "late", "result": "dry"}, "dry"),
])  # fmt: skip
async def test_W04_an_error_of_a_tool_reaches_the_model(result: dict[str, Any], content: str) -> None:
    engine = FakeEngine(script=calls_once(CALL))
    async with session(engine, tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?")
        await called(socket)
        results = [{"tool_name": "weather", **result}]
        await socket.ask("tool_result", task_id=socket.task_id, results=results)
        await socket.until_end()
    assert last_of(engine.requests[1]).content == content


async def test_W05_cancel_stops_the_model_then_answers_then_ends() -> None:
    engine = FakeEngine()
    async with session(engine) as socket:
        await socket.generate(message="Hi")
        await engine.submitted.wait()
        engine.streams[0].put(TokenDelta("Hel"))
        assert await socket.notification() == ("text_chunk", {"chunk": "Hel"})
        assert await socket.ask("cancel") == {"result": {"status": "cancelled"}}
        assert engine.aborted == [0]
        assert await socket.until_end() == []
        answer = await socket.ask("cancel")
        assert answer["error"] == {"code": -32003, "message": "No active generation to cancel"}


async def test_W05_cancel_drops_a_call_that_waits() -> None:
    engine = FakeEngine(script=calls_once(CALL))
    async with session(engine, tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?")
        await called(socket)
        assert await socket.ask("cancel") == {"result": {"status": "cancelled"}}
        assert await socket.until_end() == []
        await socket.generate(message="Oslo?")
        await called(socket)


async def test_W05_cancel_while_idle_is_refused() -> None:
    async with session(FakeEngine()) as socket:
        assert (await socket.ask("cancel"))["error"]["code"] == -32003


async def test_W06_only_one_generation_at_a_time_and_a_call_that_waits_counts() -> None:
    engine = FakeEngine(script=calls_once(CALL))
    async with session(engine, tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?")
        await called(socket)
        busy = await socket.ask("generate", message="Rome?")
        assert busy["error"] == {"code": -32002, "message": "Generation already in progress"}
        for results, task_id in (
            ([], socket.task_id), ([{"tool_name": "weather"}], "other"), ([{"tool_name": "time"}], socket.task_id),
            ([{"tool_call_id": "x", "tool_name": "weather"}], socket.task_id), ([{"tool_name": "weather"}] * 2, socket.task_id),
            ([{"result": 5}], socket.task_id),
        ):  # fmt: skip
            refused = await socket.ask("tool_result", task_id=task_id, results=results)
            assert refused["error"]["code"] == -32602
        done = {"tool_name": "weather", "result": "rain"}
        assert "result" in await socket.ask("tool_result", task_id=socket.task_id, results=[done])
        await socket.until_end()
        stale = await socket.ask("tool_result", task_id=socket.task_id, results=[done])
        assert stale == {"result": {"status": "received_ignored"}}


async def test_W06_a_result_while_the_model_generates_is_refused() -> None:
    engine = FakeEngine()
    async with session(engine) as socket:
        await socket.generate(message="Hi")
        refused = await socket.ask("tool_result", task_id="x", results=[{"tool_name": "a"}])
        assert refused["error"] == {
            "code": -32603,
            "message": "Cannot process tool result while generation is active",
        }


async def test_W08_tools_of_the_request_win_over_those_of_the_session() -> None:
    engine = FakeEngine(script=says("a"))
    async with session(engine, tools=[WEATHER]) as socket:
        for tools in (None, [TIME], []):
            await socket.generate(message="Hi", tools=tools)
            await socket.until_end()
    offered = [[tool.name for tool in prompt_of(each).tool_use.tools] for each in engine.requests]
    assert offered == [["weather"], ["time"], []]


async def test_W08_the_history_is_the_conversation() -> None:
    engine = FakeEngine(script=says("a"))
    history = [turn("system", "Be kind."), turn("user", "One"), turn("assistant", "1"), turn("user", "Two")]
    async with session(engine) as socket:
        for message in (None, "Two", "Three"):
            await socket.generate(history=history, message=message)
            await socket.until_end()
    said = [[text for _, text in turns_of(each)] for each in engine.requests]
    before = ["Be kind.", "One", "1", "Two"]
    assert said == [before, before, [*before, "Three"]]


async def test_W08_each_generate_begins_from_its_own_message() -> None:
    engine = FakeEngine(script=says("a"))
    async with session(engine) as socket:
        for message in ("One", "Two"):
            await socket.generate(message=message)
            await socket.until_end()
    assert turns_of(engine.requests[1]) == [("user", "Two")]


@pytest.mark.parametrize(
    "call", [CALL, f"```json\n{CALL}\n```", f"<tool_call>{CALL}</tool_call>", NATIVE_CALL]
)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_W09_no_part_of_a_call_is_shown_however_it_is_cut(call: str, size: int) -> None:
    text = f"Well, {call}\n and so on {call}"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    async with session(FakeEngine(script=calls_once(*pieces)), tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?")
        shown = ""
        while (told := await socket.notification())[0] == "text_chunk":
            shown += told[1]["chunk"]
        assert told[0] == "function_call_request"
    assert shown.rstrip() == "Well,"


@pytest.mark.parametrize("text", [
    '{"tool": "nope", "parameters": {}}', "{x} {y}", "```python\nprint({})\n```", '{"tool": "weather", "param', "a { b",
    "<tool_calls>", "```json\n[1]\n```",
])  # fmt: skip
async def test_W09_what_turns_out_to_be_no_call_is_shown_whole(text: str) -> None:
    async with session(FakeEngine(script=says(*text)), tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?")
        told = await socket.until_end()
    assert chunks(told) == text
    assert told[-1] == ("final_text", {"final_text": text})


@pytest.mark.parametrize("says_call", [CALL, NATIVE_CALL])
async def test_a_repeated_call_is_answered_in_prose(says_call: str) -> None:
    engine = FakeEngine(script=calls_tools(says_call))
    async with session(engine, tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?")
        await called(socket)
        results = [{"tool_name": "weather", "result": "rain"}]
        await socket.ask("tool_result", task_id=socket.task_id, results=results)
        assert (await socket.until_end())[-1] == ("final_text", {"final_text": "It rains."})


async def test_W10_who_leaves_is_generated_nothing_for() -> None:
    engine = FakeEngine()
    async with session(engine) as socket:
        await socket.generate(message="Hi")
        await engine.submitted.wait()
        socket.leave()
        await socket.ended()
    assert engine.aborted == [0]


async def test_W10_who_leaves_drops_a_call_that_waits() -> None:
    async with session(FakeEngine(script=calls_once(CALL)), tools=[WEATHER]) as socket:
        await socket.generate(message="Oslo?")
        await called(socket)
        socket.leave()
        await socket.ended()


@pytest.mark.parametrize("max_legs", [1, 5])
async def test_W11_after_the_last_leg_there_are_no_tools(max_legs: int) -> None:
    engine = FakeEngine(script=counts_up)
    settings = {} if max_legs == 5 else {"sessions_max_legs": max_legs}
    async with session(engine, settings, tools=[WEATHER]) as socket:
        await socket.generate(message="?")
        for n in range(max_legs):
            assert (await called(socket))[0]["parameters"] == {"city": f"City {n}"}
            results = [{"tool_name": "weather", "result": "rain"}]
            await socket.ask("tool_result", task_id=socket.task_id, results=results)
        assert (await socket.until_end())[-1] == ("final_text", {"final_text": "Enough."})
    assert len(engine.requests) == max_legs + 1


@pytest.mark.parametrize(("error", "code"), [
    (EngineDied("gone"), -32000), (QueueFull("full"), -32000), (LoadFailed("broken"), -32001),
])  # fmt: skip
async def test_what_fails_is_told_and_ends_the_task(error: KolosalError, code: int) -> None:
    engine = FakeEngine(script=lambda each: [*list(says("Hel")(each))[:1], error])
    async with session(engine) as socket:
        for _ in range(2):  # and the connection goes on
            await socket.generate(message="Hi")
            told = await socket.until_end()
            assert told[0] == ("text_chunk", {"chunk": "Hel"})
            method, params = told[1]
            assert (method, params["error"]["code"], params["error"]["message"]) == (
                "error",
                code,
                error.message,
            )
            assert len(told) == 2


@pytest.mark.parametrize(
    ("engine", "params"), [(None, {}), (FakeEngine(script=says("a")), {"model": "nope"})]
)
async def test_a_model_that_is_not_there_is_told(engine: FakeEngine | None, params: dict[str, Any]) -> None:
    async with session(engine) as socket:
        await socket.generate(message="Hi", **params)
        ((method, told),) = await socket.until_end()
    assert (method, told["error"]["code"]) == ("error", -32001)


async def test_a_defect_is_told_without_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(engine, "generate", lambda _request: 1 / 0)
    async with session(engine) as socket:
        await socket.generate(message="Hi")
        ((_, told),) = await socket.until_end()
    assert told["error"]["message"] == "Internal server error"


async def test_a_result_that_never_comes_ends_the_task() -> None:
    engine = FakeEngine(script=calls_once(CALL))
    app = app_with(engine)
    session_id = await new_session(app, tools=[WEATHER])
    async with connected(app, session_id) as socket:
        await socket.ask("nothing")  # the session is in use from here on, and expires no more
        app.state.services.sessions.limits = SessionSettings.model_construct(ttl_s=0.01)
        await socket.generate(message="Oslo?")
        await called(socket)
        ((method, told),) = await socket.until_end()
    assert (method, told["error"]["code"]) == ("error", -32000)
    assert "within 0.01 s" in told["error"]["message"]


async def test_what_was_said_before_a_repeated_call_is_part_of_the_text() -> None:
    engine = FakeEngine(script=calls_tools("Once more. ", CALL))
    history = [turn("user", "?"), turn("assistant", tool_calls=[CALLED]), turn("tool", tool_result="rain")]
    async with session(engine, tools=[WEATHER]) as socket:
        await socket.generate(history=history)
        told = await socket.until_end()
    assert told[-1] == ("final_text", {"final_text": chunks(told)})
    assert chunks(told).split() == ["Once", "more.", "It", "rains."]


async def test_an_engine_that_is_removed_half_way_is_told() -> None:
    engine = FakeEngine()
    async with session(engine) as socket:
        await socket.generate(message="Hi")
        await engine.submitted.wait()
        engine.streams[0].abort()
        ((method, told),) = await socket.until_end()
    assert (method, told["error"]["data"]["code"]) == ("error", "engine_died")


async def test_two_connections_of_one_session_do_not_meet() -> None:
    engine = FakeEngine()
    app = app_with(engine)
    session_id = await new_session(app)
    async with connected(app, session_id) as one, connected(app, session_id) as other:
        await one.generate(message="One")
        await eventually(lambda: len(engine.streams) == 1)
        await other.generate(message="Two")
        await eventually(lambda: len(engine.streams) == 2)
        one.leave()
        await one.ended()
        assert engine.aborted == [0]
        engine.streams[1].put(TokenDelta("b", (), FinishReason.STOP, Usage(1, 1)))
        assert chunks(await other.until_end()) == "b"
