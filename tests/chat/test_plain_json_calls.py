"""Calls that are written as plain JSON: found however the text is cut, and never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.chat.plain_json_calls import PlainJsonCall, PlainJsonCallParser, as_call

CALL = '{"tool": "a", "parameters": {"x": "}\\"", "y": [1, {}]}}'
FOUND = PlainJsonCall("a", {"x": '}"', "y": [1, {}]})


def read(*pieces: str, tools: bool = True) -> tuple[str, PlainJsonCall | None]:
    reader = PlainJsonCallParser((lambda call: call.tool == "a") if tools else None)
    shown = "".join(reader.push(piece) for piece in pieces)
    return shown + reader.end(), reader.call


fragments = st.sampled_from([
    CALL, CALL.replace('"a"', '"b"'), "{", "}", "```json\n", "```", "<tool_call>", "</tool_call>", "<think>", "</think>", "<", "\n", " ",
    "Hello", "🎉", '{"k": 1}', '{"tool": "a"', '{"tool": 5, "parameters": {}}', "[1]", '"', "\\", '{"arguments": {}, "name": "a"}',
])  # fmt: skip
texts = st.lists(fragments | st.text(max_size=5), max_size=12).map("".join)


@given(texts, st.lists(st.integers(1, 7), max_size=60), st.booleans())
def test_how_a_text_is_cut_changes_nothing(text: str, sizes: list[int], tools: bool) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    assert read(*pieces, text[at:], tools=tools) == read(text, tools=tools)


@given(texts)
def test_what_is_shown_is_part_of_the_text_and_all_of_it_where_there_is_nothing_to_hide(text: str) -> None:
    shown, call = read(text)
    if call is None and "<think>" not in text:
        assert shown == text.lstrip()
    assert '"tool": "a", "parameters"' not in shown or call is None


@pytest.mark.parametrize("text", [
    CALL, f"\n{CALL} and more {CALL}", f"```json\n{CALL}\n```", f"```{CALL}```", f"<tool_call>\n{CALL}\n</tool_call>",
    f"<think>{{</think>{CALL}",
])  # fmt: skip
def test_a_call_is_found_and_nothing_is_shown(text: str) -> None:
    assert read(*text) == ("", FOUND)


def test_text_flows_before_a_call_and_nothing_is_held_back_without_tools() -> None:
    reader = PlainJsonCallParser(lambda _call: True)
    assert [reader.push(piece) for piece in ("One", " two `", '{"tool"')] == ["One", " two ", "`"]
    reader = PlainJsonCallParser(None)
    assert [reader.push(piece) for piece in ("{", '"tool": ', "```")] == ["{", '"tool": ', "```"]


@pytest.mark.parametrize("text", [
    "[]", "5", "{}", '{"tool": "a"}', '{"parameters": {}}', '{"tool": "a", "parameters": []}', '{"tool": null, "parameters": {}}', "{",
    '{"tool": "a", "parameters": {"x": "\\ud800"}}',
])  # fmt: skip
def test_what_has_not_the_form_of_a_call_is_none(text: str) -> None:
    assert as_call(text) is None
