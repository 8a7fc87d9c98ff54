"""Custom tools of `POST /v1/chat/completions`, as the official client has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kolosal.routes.openai.custom_tools import InputReader, format_grammar, input_of
from kolosal.schema import ChatPrompt, Grammar, GrammarKind, ToolCall, ToolMode
from tests.fakes import FakeEngine, says
from tests.routes.chats import HELLO, ask, stream

RUN: dict[str, Any] = {"type": "custom", "custom": {"name": "run", "description": "Runs it."}}
DATE: dict[str, Any] = {
    "type": "custom",
    "custom": {
        "name": "date",
        "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": r"^\d{4}$"}},
    },
}
CALL = '<tool_call>\n{"name": "run", "arguments": {"input": "a \\"b\\"\\n"}}\n</tool_call>'


def _prompt(engine: FakeEngine) -> ChatPrompt:
    prompt = engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


async def test_a_custom_tool_is_a_function_of_one_text_to_the_engine() -> None:
    engine = FakeEngine(script=says("Hi"))
    choice = {"type": "custom", "custom": {"name": "date"}}
    status, _ = await ask(engine, tools=[RUN, DATE], tool_choice=choice)
    use = _prompt(engine).tool_use
    run, date = use.tools
    assert (status, use.mode, use.only) == (200, ToolMode.REQUIRED, ("date",))
    assert (run.name, run.description, run.text) == ("run", "Runs it.", None)
    assert run.parameters["required"] == ["input"]
    assert date.text == Grammar(GrammarKind.REGEX, r"\d{4}", "tools.1.custom.format.grammar.definition")
    assert date.description == "The input must conform to this regular expression:\n\\d{4}"


async def test_a_call_is_answered_in_its_own_form() -> None:
    _, body = await ask(FakeEngine(script=says(CALL)), tools=[RUN])
    [call] = body["choices"][0]["message"]["tool_calls"]
    assert (call["type"], call["custom"]) == ("custom", {"name": "run", "input": 'a "b"\n'})
    assert (body["choices"][0]["finish_reason"], "function" in call) == ("tool_calls", False)


async def test_a_call_is_streamed_as_text() -> None:
    chunks = await stream(FakeEngine(script=says(*CALL)), tools=[RUN])
    pieces = [
        call
        for chunk in chunks
        if isinstance(chunk, dict)
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert (pieces[0]["type"], pieces[0]["custom"]) == ("custom", {"name": "run", "input": ""})
    assert "".join(piece["custom"]["input"] for piece in pieces) == 'a "b"\n'
    assert all(piece["custom"]["input"] for piece in pieces[1:])


async def test_an_earlier_call_reaches_the_model() -> None:
    engine = FakeEngine(script=says("Hi"))
    call = {"id": "c1", "type": "custom", "custom": {"name": "run", "input": '"'}}
    turns = [
        *HELLO["messages"],
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Done"},
    ]
    status, body = await ask(engine, messages=turns, tools=[RUN])
    assert status == 200, body
    assert _prompt(engine).messages[1].tool_calls == (ToolCall("c1", "run", '{"input":"\\""}'),)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom"}]}, "tools.0.custom"),
        ({"tools": [{"type": "custom", "custom": {"name": "a", "format": {"type": "grammar"}}}]}, "tools.0.custom.format.grammar"),
        ({"tools": [RUN], "tool_choice": {"type": "custom"}}, "tool_choice.custom"),
        ({"tools": [RUN], "tool_choice": {"type": "custom", "custom": {"name": "b"}}}, "tool_choice"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "messages.0.tool_calls.0.custom"),
    ],
)  # fmt: skip
async def test_what_is_missing_is_named(fields: dict[str, Any], param: str) -> None:
    status, body = await ask(FakeEngine(script=says("Hi")), **fields)
    assert (status, body["error"]["param"]) == (400, param)


@pytest.mark.parametrize("text", ["", 'a"\\\n\t\x01é😀', "\\u0041"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_inputs_are_read_piece_by_piece(text: str, *, ascii_only: bool) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    reader = InputReader()
    assert "".join(map(reader.push, arguments)) == text == input_of(arguments)


def test_what_is_no_input_is_none() -> None:
    assert InputReader().push('{"other": "' + "x" * 300) == ""
    assert input_of('{"other": "x"}') == input_of('{"input": 5}') == input_of("") == ""


@pytest.mark.parametrize(
    ("pattern", "bare"), [("^a$", "a"), (r"a\$", r"a\$"), (r"a\\$", r"a\\"), ("$", ""), ("a", "a")]
)
def test_anchors_at_the_ends_say_nothing(pattern: str, bare: str) -> None:
    assert format_grammar("regex", pattern, "p").source == bare
