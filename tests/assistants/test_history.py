"""What a model reads of a thread: all in its order, calls with their results, and no more than there is room for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kolosal.assistants.history import TOKENS_PER_TURN, in_order, last_of, shortened, surely_fits, to_messages
from kolosal.schema import Message, ToolCall
from kolosal.store.pages import StoredRow


def said(seq: int, role: str, text: str, run_id: str | None = None) -> StoredRow:
    content = [{"type": "text", "text": {"value": text, "annotations": []}}]
    data = {"object": "thread.message", "role": role, "content": content, "run_id": run_id}
    return StoredRow(seq, f"msg_{seq}", data)


def called(seq: int, run_id: str, output: str | None) -> StoredRow:
    calls = [{"id": f"call_{seq}", "function": {"name": "f", "arguments": "{}", "output": output}}]
    data = {"object": "thread.run.step", "run_id": run_id, "step_details": {"tool_calls": calls}}
    return StoredRow(seq, f"step_{seq}", data)


def test_calls_stand_where_they_were_made() -> None:
    rows = in_order(
        [
            said(1, "user", "Hello"),
            said(2, "assistant", "Let me see.", "run_1"),
            said(5, "assistant", "It is.", "run_1"),
        ],
        [called(3, "run_1", "yes"), called(4, "run_1", None)],
        "run_1",
    )
    call = ToolCall("call_3", "f", "{}")
    assert to_messages("Be kind.", rows) == (
        Message("system", "Be kind."),
        Message("user", "Hello"),
        Message("assistant", "Let me see.", tool_calls=(call,)),
        Message("tool", "yes", "f", tool_call_id="call_3"),
        Message("assistant", "It is."),
    )


def test_a_call_without_words_is_a_turn_of_its_own() -> None:
    rows = in_order(
        [said(1, "assistant", "Hello"), said(2, "user", "Now?")], [called(3, "run_1", "yes")], "run_2"
    )
    assert [turn.role for turn in to_messages("", rows)] == ["assistant", "user", "assistant", "tool"]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.integers(0, 3000))
def test_the_last_messages_that_may_fit_are_taken(lengths: list[int], max_chars: int) -> None:
    rows = [said(n, "user", "x" * length) for n, length in enumerate(lengths)]
    taken = last_of(rows, max_chars)
    assert list(taken) == rows[-len(taken) :]
    counted = [length + TOKENS_PER_TURN for length in lengths]
    assert len(taken) == 1 or sum(counted[-len(taken) :]) <= max_chars
    assert len(taken) == len(rows) or sum(counted[-len(taken) - 1 :]) > max_chars


@given(st.lists(st.integers(0, 400), min_size=1, max_size=40), st.integers(1, 4000))
def test_a_prompt_becomes_shorter_until_it_fits_or_is_one_message(lengths: list[int], budget: int) -> None:
    rows: Any = [
        said(n, "user" if n % 2 == 0 else "assistant", "x" * length) for n, length in enumerate(lengths)
    ]
    for _ in range(len(rows)):
        turns = to_messages("", rows)
        n_tokens = sum(len(turn.content) + 5 for turn in turns)
        assert surely_fits(turns, budget) <= (n_tokens <= budget)
        if n_tokens <= budget or len(rows) == 1:
            break
        shorter = shortened(rows, n_tokens, budget)
        assert 0 < len(shorter) < len(rows)
        assert list(shorter) == list(rows[-len(shorter) :])
        rows = shorter
    assert n_tokens <= budget or len(rows) == 1


def test_a_thread_that_outgrew_the_window_begins_at_the_same_message_for_a_while() -> None:
    begins, n_runs = [], 200
    for number in range(100, 100 + n_runs):
        rows = [said(n, "user" if n % 2 == 0 else "assistant", "x" * 100) for n in range(number)]
        begins.append(shortened(rows, 132 * number, 132 * 60)[0].seq)
    assert begins == sorted(begins)
    assert len(set(begins)) < n_runs / 4
    assert all(number - begin >= 25 for number, begin in zip(range(100, 100 + n_runs), begins, strict=True))
