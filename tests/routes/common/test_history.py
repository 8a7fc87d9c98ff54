"""Calls and results that have no ids, and where the turn begins that is to be answered."""

from __future__ import annotations

import pytest

from kolosal.routes.common.history import current_turn, with_paired_calls
from kolosal.schema import Message, ToolCall


def caller(*calls: tuple[str, str]) -> Message:
    return Message("assistant", "", tool_calls=tuple(ToolCall(id_, name, "{}") for id_, name in calls))


def result(name: str | None = None, call_id: str | None = None) -> Message:
    return Message("tool", "x", name, tool_call_id=call_id)


@pytest.mark.parametrize(
    ("history", "answered"),
    [
        ([caller(("", "f"), ("", "g")), result(), result()], [("f", "call_1"), ("g", "call_2")]),
        ([caller(("", "f"), ("", "g")), result("g"), result()], [("g", "call_2"), ("f", "call_1")]),
        ([caller(("a", "f"), ("b", "g")), result(None, "b"), result(None, "a")], [("g", "b"), ("f", "a")]),
        ([caller(("", "f")), result(), caller(("", "f")), result()], [("f", "call_1"), ("f", "call_2")]),
        ([caller(("a", "f")), result("f", "zzz"), result()], [("f", "zzz"), ("f", "a")]),
        ([result(), result("f")], [(None, None), ("f", None)]),
    ],
)
def test_id_null_results_answer_their_calls(
    history: list[Message], answered: list[tuple[str | None, str | None]]
) -> None:
    turns = with_paired_calls(history)

    assert [(turn.name, turn.tool_call_id) for turn in turns if turn.role == "tool"] == answered
    ids = [call.id for turn in turns for call in turn.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert with_paired_calls(history) == turns


@pytest.mark.parametrize(
    ("roles", "start"),
    [
        (["user"], 0), (["system", "user", "user"], 0), (["user", "assistant", "user"], 2), (["user", "assistant"], 0),
        (["user", "assistant", "tool", "user"], 2), (["user", "assistant", "user", "assistant"], 2), ([], 0),
    ],
)  # fmt: skip
def test_the_turn_that_is_to_be_answered_begins_after_what_the_assistant_said(
    roles: list[str], start: int
) -> None:
    assert current_turn(roles) == start
