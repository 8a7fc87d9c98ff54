"""What Codex sends: custom tools, namespaces, OpenAI's own tools, and thoughts that it keeps for the daemon."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kolosal.routes.openai.responses.sealed import ThoughtSeal
from kolosal.schema import ChatPrompt, FinishReason, Grammar, GrammarKind, Message, ToolCall, ToolMode
from tests.engines.helpers import INFO
from tests.fakes import FakeEngine, Script, says
from tests.routes.openai.responses.asking import CALL, WEATHER, ask, client_of, create, in_turn, stream

PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "+" /.*/'},
}
SPAWN: dict[str, Any] = {
    "type": "function",
    "name": "spawn",
    "parameters": {"type": "object", "properties": {}},
}
AGENTS: dict[str, Any] = {
    "type": "namespace",
    "name": "agents",
    "description": "Others.",
    "tools": [SPAWN, {"type": "custom", "name": "note"}],
}
TOOLS = [
    WEATHER,
    {"type": "web_search"},
    {"type": "local_shell"},
    PATCH,
    AGENTS,
    {"type": "mcp", "server_label": "x"},
]


def _call(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def _thinker(script: Script) -> FakeEngine:
    engine = FakeEngine(script=script)
    engine.info = replace(INFO, thinking_tags=("<think>", "</think>"))
    return engine


def _prompt(engine: FakeEngine) -> ChatPrompt:
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"store": False, "include": ["reasoning.encrypted_content"]}, id="codex-include"),
        pytest.param({"tools": TOOLS}, id="codex-tools"),
        pytest.param({"text": {"verbosity": "low"}}, id="codex-verbosity"),
        pytest.param(
            {
                "include": ["web_search_call.action.sources", "code_interpreter_call.outputs"],
                "reasoning": {"effort": "medium", "summary": "auto"},
                "parallel_tool_calls": True,
                "prompt_cache_key": "k",
                "client_metadata": {"x-codex-window-id": "w:0"},
                "service_tier": "priority",
                "tools": [WEATHER | {"defer_loading": True}, {"type": "tool_search", "execution": "client"}],
            },
            id="codex-others",
        ),
    ],
)
async def test_what_codex_sends_is_taken(fields: dict[str, Any]) -> None:
    status, body = await ask(FakeEngine(script=says("Hi")), **fields)
    assert (status, body.get("error")) == (200, None)


async def test_tools_reach_the_model_by_one_name_and_own_ones_are_left_out() -> None:
    engine = FakeEngine(script=says("Hi"))
    _, body = await ask(engine, tools=TOOLS, text={"verbosity": "low"})
    weather, patch, spawn, note = _prompt(engine).tool_use.tools
    assert [weather.name, patch.name, spawn.name, note.name] == [
        "weather",
        "apply_patch",
        "agents.spawn",
        "agents.note",
    ]
    assert patch.text == Grammar(GrammarKind.LARK, 'start: "+" /.*/', "tools.3.format.definition")
    assert (
        patch.description == 'Edits files.\n\nThe input must conform to this Lark grammar:\nstart: "+" /.*/'
    )
    assert (note.text, [*note.parameters["properties"]]) == (None, ["input"])
    assert [tool["type"] for tool in body["tools"]] == ["function", "custom", "namespace"]
    assert body["tools"][1] == PATCH
    assert [tool["name"] for tool in body["tools"][2]["tools"]] == ["spawn", "note"]
    assert body["text"]["verbosity"] == "low"


@pytest.mark.parametrize(
    ("choice", "mode", "only"),
    [
        ({"type": "custom", "name": "apply_patch"}, ToolMode.REQUIRED, ("apply_patch",)),
        ({"type": "function", "name": "spawn"}, ToolMode.REQUIRED, ("agents.spawn",)),
        ({"type": "function", "name": "agents.spawn"}, ToolMode.REQUIRED, ("agents.spawn",)),
        ({"type": "custom", "name": "note", "namespace": "agents"}, ToolMode.REQUIRED, ("agents.note",)),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}, {"type": "namespace", "name": "agents"}]},
            ToolMode.AUTO,
            ("agents.spawn", "agents.note"),
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}, ToolMode.NONE, ()),
    ],
)  # fmt: skip
async def test_a_choice_names_any_of_them(choice: object, mode: ToolMode, only: tuple[str, ...]) -> None:
    engine = FakeEngine(script=says("Hi"))
    status, _ = await ask(engine, tools=TOOLS, tool_choice=choice)
    use = _prompt(engine).tool_use
    assert (status, use.mode, use.only) == (200, mode, only)


async def test_calls_come_back_as_the_tools_were_given() -> None:
    text = _call("agents.spawn", {}) + "\n" + _call("apply_patch", {"input": '+"a"\n'}) + "\n" + _call("agents.note", {"input": ""})  # fmt: skip
    _, body = await ask(FakeEngine(script=says(text)), tools=TOOLS)
    spawn, patch, note = body["output"]
    assert (spawn["type"], spawn["name"], spawn["namespace"]) == ("function_call", "spawn", "agents")
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "apply_patch", '+"a"\n')
    assert "namespace" not in patch
    assert (note["type"], note["name"], note["namespace"], note["input"]) == (
        "custom_tool_call",
        "note",
        "agents",
        "",
    )


async def test_an_input_is_streamed_as_text() -> None:
    pieces = (*'<tool_call>\n{"name": "apply_patch", "arguments": {"input": "+', "\\", "n\\u0", "0e9 \\ud83d", "\\ude00", '"}}\n</tool_call>')  # fmt: skip
    async with client_of(FakeEngine(script=says(*pieces))) as client:
        events = await stream(client, tools=TOOLS)
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert kinds[2:3] + kinds[-3:] == ["output_item.added", "custom_tool_call_input.done", "output_item.done", "completed"]  # fmt: skip
    assert deltas == ["+", "\n", "é ", "😀"]
    done = events[-3]
    assert (done["input"], done["item_id"]) == ("+\né 😀", events[2]["item"]["id"])
    assert events[2]["item"] | {"input": done["input"], "status": "completed"} == events[-2]["item"]


async def test_a_call_that_is_cut_off_keeps_the_input_so_far() -> None:
    script = says(
        '<tool_call>\n{"name": "apply_patch", "arguments": {"input": "+a\\', finish=FinishReason.LENGTH
    )
    _, body = await ask(FakeEngine(script=script), tools=TOOLS)
    [call] = body["output"]
    assert (call["input"], call["status"], body["status"]) == ("+a", "incomplete", "incomplete")


async def test_history_of_every_kind_reaches_the_model() -> None:
    engine = FakeEngine(script=says("Hi"))
    history: list[dict[str, Any]] = [
        {"role": "user", "content": "Go"},
        {"type": "custom_tool_call", "call_id": "1", "name": "apply_patch", "input": '+"'},
        {"type": "function_call", "call_id": "2", "name": "spawn", "namespace": "agents", "arguments": "{}"},
        {"type": "local_shell_call", "call_id": "3", "status": "completed", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "tool_search_call", "call_id": "4", "execution": "client", "arguments": {"query": "x"}},
        {"type": "custom_tool_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "Done"}]},
        {"type": "function_call_output", "call_id": "2", "output": "7"},
        {"type": "local_shell_call_output", "call_id": "3", "output": "a.txt"},
        {"type": "tool_search_output", "call_id": "4", "tools": []},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
    ]  # fmt: skip
    status, body = await ask(engine, tools=TOOLS, input=history)
    assert status == 200, body
    calls = (
        ToolCall("1", "apply_patch", '{"input":"+\\""}'),
        ToolCall("2", "agents.spawn", "{}"),
        ToolCall("3", "local_shell", '{"type":"exec","command":["ls"]}'),
        ToolCall("4", "tool_search", '{"query":"x"}'),
    )
    results = [
        ("apply_patch", "Done"),
        ("agents.spawn", "7"),
        ("local_shell", "a.txt"),
        ("tool_search", "[]"),
    ]
    assert _prompt(engine).messages == (
        Message("user", "Go"),
        Message("assistant", "", tool_calls=calls),
        *(
            Message("tool", text, name, tool_call_id=str(n))
            for n, (name, text) in enumerate(results, start=1)
        ),
    )


async def test_sealed_thoughts_are_given_back() -> None:
    engine = _thinker(in_turn(says("<think>Hm. Hm.</think>Hi"), says("Ho")))
    async with client_of(engine) as client:
        first = await create(client, store=False, include=["reasoning.encrypted_content"])
        reasoning, message = first["output"]
        sealed = reasoning["encrypted_content"]
        assert "Hm" not in sealed
        kept = {"type": "reasoning", "summary": [], "content": None, "encrypted_content": sealed}
        await create(client, input=[{"role": "user", "content": "Hello"}, kept, message])
    assert _prompt(engine).messages[1] == Message("assistant", "Hi", thinking="Hm. Hm.")


@pytest.mark.parametrize(
    "sealed",
    ["", "no base64 é", ThoughtSeal().seal("Hm."), "gAAAAABo"],
    ids=["none", "text", "other", "short"],
)
async def test_thoughts_that_another_server_sealed_are_left_out(sealed: str) -> None:
    engine = FakeEngine(script=says("Hi"))
    reasoning = {"type": "reasoning", "summary": [], "encrypted_content": sealed}
    status, _ = await ask(engine, input=[{"role": "user", "content": "Hello"}, reasoning])
    assert (status, [message.thinking for message in _prompt(engine).messages]) == (200, [None])


def test_a_seal_knows_its_own() -> None:
    seal = ThoughtSeal()
    sealed = seal.seal("Hm. é")
    assert seal.open(sealed) == "Hm. é"
    assert seal.open(sealed[:-4] + ("AAAA" if sealed[-4:] != "AAAA" else "BBBB")) is None
    assert ThoughtSeal().open(sealed) is None


async def test_thoughts_are_sealed_only_where_that_is_asked_for() -> None:
    engine = _thinker(says("<think>Hm.</think>Hi"))
    _, body = await ask(engine)
    assert "encrypted_content" not in body["output"][0]


SEARCH: dict[str, Any] = {
    "type": "tool_search",
    "execution": "client",
    "description": "Finds tools.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}


async def test_items_bring_tools_along() -> None:
    engine = FakeEngine(script=says(_call("exec", {"input": "1"})))
    functions = {
        "type": "namespace",
        "name": "functions",
        "tools": [{"type": "custom", "name": "exec"}, SPAWN],
    }
    items = [
        {
            "type": "additional_tools",
            "role": "developer",
            "tools": [functions, WEATHER, {"type": "web_search"}],
        },
        {"role": "user", "content": "Go"},
    ]
    _, body = await ask(engine, input=items, tools=[WEATHER])
    assert [tool.name for tool in _prompt(engine).tool_use.tools] == ["weather", "exec", "spawn"]
    assert _prompt(engine).messages == (Message("user", "Go"),)
    [call] = body["output"]
    assert (call["type"], call["name"], call["namespace"]) == ("custom_tool_call", "exec", "functions")


async def test_a_client_searches_tools_and_has_them_called() -> None:
    engine = FakeEngine(script=in_turn(says(_call("tool_search", {"query": "weather"})), says(CALL)))
    async with client_of(engine) as client:
        events = await stream(client, tools=[SEARCH])
        kinds = [event["type"].removeprefix("response.") for event in events]
        assert kinds[2:] == ["output_item.added", "output_item.done", "completed"]
        search = events[3]["item"]
        assert (search["type"], search["execution"], search["arguments"]) == ("tool_search_call", "client", {"query": "weather"})  # fmt: skip
        assert events[4]["response"]["tools"] == [SEARCH]
        found = {"type": "tool_search_output", "call_id": search["call_id"], "tools": [WEATHER]}
        second = await create(
            client, input=[{"role": "user", "content": "Hello"}, search, found], tools=[SEARCH]
        )
        assert [tool.name for tool in _prompt(engine).tool_use.tools] == ["tool_search", "weather"]
        assert second["output"][0]["name"] == "weather"
        assert _prompt(engine).messages[1].tool_calls == (ToolCall(search["call_id"], "tool_search", '{"query":"weather"}'),)  # fmt: skip
        first = events[4]["response"]["id"]
        await create(client, input=[found], tools=[SEARCH], previous_response_id=first)
        assert _prompt(engine).messages[1].tool_calls[0].name == "tool_search"


async def test_agents_talk_to_each_other() -> None:
    engine = FakeEngine(script=says("Hi"))
    parts = [
        {"type": "input_text", "text": "Sender: /root"},
        {"type": "encrypted_content", "encrypted_content": "Find it."},
    ]
    item = {"type": "agent_message", "author": "/root", "recipient": "/root/t1", "content": parts}
    status, body = await ask(engine, input=[item])
    assert status == 200, body
    assert _prompt(engine).messages == (Message("user", "Sender: /root\nFind it."),)
