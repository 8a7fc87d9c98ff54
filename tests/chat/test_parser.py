"""Turns of every family, however they are cut: text, thoughts and calls, with nothing lost."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.chat.events import (
    CallBegin,
    CallEnd,
    CallPiece,
    ChatEvent,
    ChatTurn,
    Ended,
    TextPiece,
    ThinkingPiece,
    whole_turn,
)
from kolosal.chat.formats import ToolFormat
from kolosal.chat.parser import ChatParser
from kolosal.schema import FinishReason, TokenDelta, TokenLogprob, TokenLogprobs, Tool, Usage
from tests.chat.recorded import BROKEN, EMPTY, NESTED, RECORDED, THINK, TOOLS, WEATHER, Recorded, hermes

USAGE = Usage(1, 1)


def events(
    recorded: Recorded,
    cuts: list[int] | None = None,
    *,
    tools: bool = True,
    reason: FinishReason = FinishReason.STOP,
) -> list[ChatEvent]:
    """All events of a turn that comes in pieces cut at these places."""
    parser = ChatParser(recorded.tool_format, recorded.tags, TOOLS if tools else ())
    edges = [0, *sorted(cuts or []), len(recorded.written)]
    found: list[ChatEvent] = []
    for start, end in pairwise(edges):
        found += parser.push(TokenDelta(recorded.written[start:end]))
    return found + parser.push(TokenDelta("", finish_reason=reason, usage=USAGE))


def text(tool_format: ToolFormat, written: str, tags: tuple[str, str] | None = None) -> Recorded:
    return Recorded(tool_format, written, tags=tags)


def meaning(turn: ChatTurn) -> tuple[str, str, tuple[tuple[str, str], ...], FinishReason]:
    return (
        turn.text,
        turn.thinking,
        tuple((call.name, call.arguments) for call in turn.calls),
        turn.finish_reason,
    )


def merged(found: list[ChatEvent]) -> list[object]:
    """Events with neighbouring pieces joined and without ids, which are random."""
    whole: list[object] = []
    for event in found:
        match whole[-1] if whole else None, event:
            case TextPiece(text=before), TextPiece(text=after):
                whole[-1] = TextPiece(before + after)
            case ThinkingPiece(text=before), ThinkingPiece(text=after):
                whole[-1] = ThinkingPiece(before + after)
            case CallPiece(index=index, arguments=before), CallPiece(arguments=after):
                whole[-1] = CallPiece(index, before + after)
            case _, CallBegin(index=index, name=name):
                whole.append((index, name))
            case _:
                whole.append(event)
    return whole


# --- what turns mean ---


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_turn_is_read(recorded: Recorded) -> None:
    reason = FinishReason.TOOL_CALLS if recorded.calls else FinishReason.STOP

    assert meaning(whole_turn(events(recorded))) == (recorded.text, recorded.thinking, recorded.calls, reason)


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_turn_is_the_same_cut_at_every_single_place(recorded: Recorded) -> None:
    whole = merged(events(recorded))

    for cut in range(1, len(recorded.written)):
        assert merged(events(recorded, [cut])) == whole, cut


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_turn_is_the_same_character_by_character(recorded: Recorded) -> None:
    assert merged(events(recorded, list(range(1, len(recorded.written))))) == merged(events(recorded))


@given(st.data())
def test_turn_is_the_same_however_it_is_cut(data: st.DataObject) -> None:
    recorded = data.draw(st.sampled_from(RECORDED))
    cuts = data.draw(st.lists(st.integers(0, len(recorded.written)), max_size=20))

    assert merged(events(recorded, cuts)) == merged(events(recorded))


_PARTS = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "{", "}", '"name"',
        ": ", '"f"', ", ", '"arguments"', '"parameters"', "\n", " ", "x", "\\", '"', "[", "]", "; ", "<|channel|>", "<|message|>",
        "<|end|>", "<|tool_call>call:f", "<tool_call|>", '<|"|>', "a:", ",", "1", "}", "final", "analysis", "to=functions.f", hermes(EMPTY), '{"name": "f", "parameters": {}}',
    ]
)  # fmt: skip
_formats = st.sampled_from(list(ToolFormat))


@given(_formats, st.lists(_PARTS, max_size=12), st.data())
def test_any_text_is_the_same_however_it_is_cut(
    tool_format: ToolFormat, parts: list[str], data: st.DataObject
) -> None:
    recorded = text(tool_format, "".join(parts), THINK)
    cuts = data.draw(st.lists(st.integers(0, len(recorded.written)), max_size=12))

    assert merged(events(recorded, cuts)) == merged(events(recorded))


@given(_formats, st.lists(_PARTS, max_size=12))
def test_completed_calls_have_an_object_for_arguments(tool_format: ToolFormat, parts: list[str]) -> None:
    found = events(text(tool_format, "".join(parts)))
    arguments: dict[int, str] = {}
    for event in found:
        if isinstance(event, CallPiece):
            arguments[event.index] = arguments.get(event.index, "") + event.arguments

    for event in found:
        if isinstance(event, CallEnd):
            assert isinstance(json.loads(arguments[event.index]), dict)


@given(_formats, st.lists(_PARTS, max_size=12))
def test_every_turn_ends_once_and_last(tool_format: ToolFormat, parts: list[str]) -> None:
    found = events(text(tool_format, "".join(parts)))

    assert [isinstance(event, Ended) for event in found] == [False] * (len(found) - 1) + [True]


@given(st.text(alphabet="<think>/ \nab", max_size=40))
def test_text_without_calls_or_thoughts_is_never_changed(written: str) -> None:
    turn = whole_turn(events(text(ToolFormat.GENERIC, written), tools=False))

    assert turn.text == written


# --- broken calls ---


@pytest.mark.parametrize(("tool_format", "written"), BROKEN)
def test_broken_call_is_shown_as_it_is(tool_format: ToolFormat, written: str) -> None:
    turn = whole_turn(events(text(tool_format, written)))

    assert meaning(turn) == (written, "", (), FinishReason.STOP)


@pytest.mark.parametrize(
    ("tool_format", "written"),
    [
        (ToolFormat.HERMES, hermes(("nobody", "{}"))),
        (ToolFormat.GPT_OSS, "<|channel|>commentary to=functions.nobody <|constrain|>json<|message|>{}"),
    ],
)
def test_call_of_a_tool_that_is_none_is_text(tool_format: ToolFormat, written: str) -> None:
    parser = ChatParser(tool_format, None, (Tool("f"),))
    turn = whole_turn(parser.push(TokenDelta(written, finish_reason=FinishReason.STOP, usage=USAGE)))

    assert meaning(turn) == (written, "", (), FinishReason.STOP)


def test_call_after_a_broken_one_is_read() -> None:
    turn = whole_turn(events(text(ToolFormat.HERMES, f"<tool_call>oops</tool_call>\n{hermes(EMPTY)}")))

    assert meaning(turn) == ("<tool_call>oops</tool_call>", "", (EMPTY,), FinishReason.TOOL_CALLS)


def test_call_cut_off_by_length_keeps_what_was_streamed() -> None:
    written = '<tool_call>\n{"name": "plan", "arguments": {"days": [1,'
    found = events(text(ToolFormat.HERMES, written), reason=FinishReason.LENGTH)

    assert meaning(whole_turn(found)) == ("", "", (("plan", '{"days": [1,'),), FinishReason.LENGTH)
    assert not any(isinstance(event, CallEnd) for event in found)


def test_arguments_that_turn_out_broken_are_no_completed_call() -> None:
    written = '<tool_call>\n{"name": "plan", "arguments": {"days": oops}}\n</tool_call>'
    found = events(text(ToolFormat.HERMES, written))
    turn = whole_turn(found)

    assert turn.finish_reason is FinishReason.STOP
    assert (turn.calls[0].arguments, turn.text) == ('{"days": ', "")


@pytest.mark.parametrize("nested", ["[" * 500, '{"a":' * 500])
def test_arguments_nested_too_deep_are_broken(nested: str) -> None:
    written = f'<tool_call>\n{{"name": "plan", "arguments": {{"a": {nested}'

    assert not any(isinstance(event, CallEnd) for event in events(text(ToolFormat.HERMES, written)))


@pytest.mark.parametrize(
    "value", ["01", "1.", "+1", "tru", "'a'", '"\\x"', '"\\u12g4"', '"a\nb"', "[1,]", "{,}", '{"a"}']
)
def test_arguments_that_are_no_json_are_no_completed_call(value: str) -> None:
    written = f'<tool_call>\n{{"name": "f", "arguments": {{"a": {value}}}}}\n</tool_call>'

    assert not any(isinstance(event, CallEnd) for event in events(text(ToolFormat.HERMES, written)))


@pytest.mark.parametrize(
    "inside",
    [
        "a",
        "a:",
        "a:b",
        "a:1,",
        "a:[1",
        "a:[1,]",
        "a:1 b:2",
        '<|"|>a',
        ":1",
        "a:01",
        "a:<b>",
        "a:" + "[" * 500,
    ],
)
def test_notation_that_is_broken_is_no_completed_call(inside: str) -> None:
    found = events(text(ToolFormat.GEMMA, f"<|tool_call>call:f{{{inside}}}<tool_call|>"))

    assert not any(isinstance(event, CallEnd) for event in found)


@pytest.mark.parametrize(
    "inside", ["x", "<parameter=>\n1\n</parameter>", "<parameter=a>\n1", "<parameter=a\n1</parameter>"]
)
def test_tags_that_are_broken_are_no_completed_call(inside: str) -> None:
    found = events(
        text(ToolFormat.QWEN_CODER, f"<tool_call>\n<function=f>\n{inside}\n</function>\n</tool_call>")
    )

    assert not any(isinstance(event, CallEnd) for event in found)


def test_schema_tells_strings_in_tags_from_other_values() -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"enum": ["5"]}, "c": {"type": "integer"}},
    }
    parser = ChatParser(ToolFormat.QWEN_CODER, None, (Tool("f", parameters=parameters),))
    arguments = "".join(f"<parameter={name}>\n5\n</parameter>\n" for name in "abc")
    written = f"<tool_call>\n<function=f>\n{arguments}</function>\n</tool_call>"
    turn = whole_turn(parser.push(TokenDelta(written, finish_reason=FinishReason.STOP, usage=USAGE)))

    assert turn.calls[0].arguments == '{"a": "5", "b": "5", "c": 5}'


# --- what ends a turn ---


@pytest.mark.parametrize("recorded", [each for each in RECORDED if each.calls], ids=str)
def test_turn_cut_off_anywhere_has_whole_calls_and_no_markup(recorded: Recorded) -> None:
    for length in range(len(recorded.written)):
        cut = Recorded(recorded.tool_format, recorded.written[:length], tags=recorded.tags)
        turn = whole_turn(events(cut, reason=FinishReason.LENGTH))

        assert recorded.text.startswith(turn.text.strip())
        if turn.finish_reason is FinishReason.TOOL_CALLS:
            assert meaning(turn)[2] == recorded.calls[: len(turn.calls)]
        else:
            assert turn.finish_reason is FinishReason.LENGTH
            assert [call.name for call in turn.calls] in ([], [recorded.calls[0][0]])


@pytest.mark.parametrize("written", ["<", "<tool_call>", '<tool_call>\n{"name": "f"', "<tool_call>?"])
def test_forced_turn_shows_no_text(written: str) -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS, forced=True)
    turn = whole_turn(parser.push(TokenDelta(written, finish_reason=FinishReason.LENGTH, usage=USAGE)))

    assert meaning(turn) == ("", "", (), FinishReason.LENGTH)


def test_further_call_is_shown_when_it_is_complete() -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS)
    parser.push(TokenDelta(hermes(EMPTY)))

    assert parser.push(TokenDelta('\n<tool_call>\n{"name": "f", "arguments": {"a": 1')) == []
    assert [type(event) for event in parser.push(TokenDelta("}}"))] == [CallBegin, CallPiece, CallEnd]


@pytest.mark.parametrize(
    "after", ["So", "\nSo", "\n\n<b>", '\n<tool_call>\n{"name": "plan", "arguments": {"b": 2,"a":1}']
)
def test_turn_is_over_with_text_or_the_same_call_after_a_call(after: str) -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS)
    parser.push(TokenDelta(hermes(("plan", '{"a": 1, "b": 2}'))))

    assert not parser.over
    assert parser.push(TokenDelta(after)) == []
    assert parser.over


def test_text_before_calls_does_not_end_a_turn() -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS)
    parser.push(TokenDelta("Let me see. <tool_call>\nnone</tool_call>"))

    assert not parser.over


# --- without tools ---


def test_without_tools_a_call_is_text() -> None:
    recorded = text(ToolFormat.HERMES, f"See:\n{hermes(WEATHER)}\n")

    assert whole_turn(events(recorded, tools=False)).text == recorded.written


def test_without_tools_thoughts_are_still_thoughts() -> None:
    turn = whole_turn(events(text(ToolFormat.HERMES, "<think>a</think>b", THINK), tools=False))

    assert (turn.thinking, turn.text) == ("a", "b")


def test_without_tools_a_call_in_a_channel_is_text() -> None:
    written = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"

    assert whole_turn(events(text(ToolFormat.GPT_OSS, written), tools=False)).text == written


# --- as it comes ---


def test_arguments_are_streamed_as_they_come() -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS)
    parser.push(TokenDelta('<tool_call>\n{"name": "plan", "arguments": {"days'))

    assert parser.push(TokenDelta('": [1, ')) == [CallPiece(0, '": [1, ')]


def test_text_is_streamed_as_it_comes() -> None:
    parser = ChatParser(ToolFormat.HERMES, THINK, TOOLS)
    parser.push(TokenDelta("Good"))

    assert parser.push(TokenDelta(" morning")) == [TextPiece(" morning")]


def test_thoughts_are_streamed_as_they_come() -> None:
    parser = ChatParser(ToolFormat.HERMES, THINK, TOOLS)
    parser.push(TokenDelta("<think>\nGood"))

    assert parser.push(TokenDelta(" morning")) == [ThinkingPiece(" morning")]


def test_only_the_possible_beginning_of_a_marker_is_held_back() -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS)

    assert parser.push(TokenDelta("if a <t")) == [TextPiece("if a")]
    assert parser.push(TokenDelta("e")) == [TextPiece(" <te")]


def test_call_begins_when_its_arguments_do() -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS)

    assert parser.push(TokenDelta('<tool_call>\n{"name": "f", "arguments":')) == []
    assert isinstance(parser.push(TokenDelta(" {"))[0], CallBegin)


# --- ids, endings, log-probabilities ---


def test_ids_are_unique_and_of_openais_form() -> None:
    calls = whole_turn(events(text(ToolFormat.HERMES, hermes(WEATHER, NESTED, EMPTY)))).calls

    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert call.id.startswith("call_")
        assert len(call.id.removeprefix("call_")) == 24
        assert call.id.removeprefix("call_").isalnum()


def test_mistrals_ids_are_nine_letters_and_digits_or_the_models_own() -> None:
    recorded = text(ToolFormat.MISTRAL_ARGS, "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]now[CALL_ID]Ab1Cd2Ef3[ARGS]{}")
    made, own = (call.id for call in whole_turn(events(recorded)).calls)

    assert (len(made), made.isalnum(), own) == (9, True, "Ab1Cd2Ef3")


def test_stop_string_is_told() -> None:
    parser = ChatParser(ToolFormat.HERMES, None)
    delta = TokenDelta("a", finish_reason=FinishReason.STOP, usage=USAGE, stop="END")

    assert parser.push(delta)[-1] == Ended(FinishReason.STOP, USAGE, "END")


LOGPROBS = (TokenLogprobs(TokenLogprob(1, "a", -0.5)),)


def test_logprobs_go_with_the_text() -> None:
    parser = ChatParser(ToolFormat.HERMES, None, TOOLS)

    assert parser.push(TokenDelta("a", logprobs=LOGPROBS)) == [TextPiece("a", LOGPROBS)]


def test_logprobs_without_text_go_with_empty_text() -> None:
    parser = ChatParser(ToolFormat.HERMES, THINK, TOOLS)

    assert parser.push(TokenDelta("<think>a", logprobs=LOGPROBS)) == [
        TextPiece("", LOGPROBS),
        ThinkingPiece("a"),
    ]


@pytest.mark.parametrize("tool_format", [ToolFormat.HERMES, ToolFormat.GPT_OSS, ToolFormat.QWEN_CODER])
def test_what_one_delta_adds_is_one_piece(tool_format: ToolFormat) -> None:
    parser = ChatParser(tool_format, None, TOOLS)
    found = parser.push(TokenDelta("x" + "<" * 3000 + "y"))

    assert found == [TextPiece("x" + "<" * 3000 + "y")]
