"""Whatever happens to a run, in whatever order: its states follow each other as they may, and what it tells fits together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.assistants.objects import RunObject
from kolosal.assistants.runs import (
    ACTIVE,
    ALLOWED,
    as_it_is,
    moved,
    step_as_it_is,
    wanted_calls,
    with_outputs,
)
from kolosal.assistants.searches import SearchOptions, searched
from kolosal.assistants.writer import RunEvent, RunWriter
from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.errors import InvalidRequest
from kolosal.schema import FinishReason, Usage

RUN: Any = {
    "id": "run_1", "object": "thread.run", "created_at": 0, "thread_id": "thread_1", "assistant_id": "asst_1",
    "status": "queued", "required_action": None, "last_error": None, "expires_at": 600, "started_at": None,
    "cancelled_at": None, "failed_at": None, "completed_at": None, "incomplete_details": None, "usage": None,
}  # fmt: skip

TERMINAL = sorted(ALLOWED.keys() - ACTIVE)

turns = st.builds(
    lambda texts, calls, finish: (texts, calls, finish),
    st.lists(st.text(max_size=3), max_size=4),
    st.lists(st.sampled_from(["a", "b", "file_search"]), max_size=3),
    st.sampled_from([FinishReason.STOP, FinishReason.LENGTH, None]),
)
"""What a model says, the tools that it calls then, and how it ends; None: it does not."""

steps = st.lists(
    st.tuples(turns, st.sampled_from(["", "cancel", "fail", "expire"]), st.integers(0, 10)),
    min_size=1,
    max_size=4,
)


def events_of(texts: list[str], calls: list[str], finish: FinishReason | None) -> list[ChatEvent]:
    events: list[ChatEvent] = [ThinkingPiece("hm"), *(TextPiece(text) for text in texts)]
    for index, name in enumerate(calls):
        events += [
            CallBegin(index, f"call_{index}", name),
            CallPiece(index, "{"),
            CallPiece(index, "}"),
            CallEnd(index),
        ]
    if finish is not None:
        ends = FinishReason.TOOL_CALLS if calls and finish is FinishReason.STOP else finish
        events.append(Ended(ends, Usage(3, 2, 1)))
    return events


@given(steps)
def test_a_run_and_its_events_fit_together(plan: Any) -> None:
    run, seen = RUN, [RunEvent("thread.run.queued", RUN)]
    for (texts, calls, finish), interruption, at in plan:
        writer = RunWriter(run, itertools.count(1).__next__)
        seen += writer.start()
        for number, event in enumerate(events_of(texts, calls, finish)):
            if number == at and interruption == "cancel":
                seen += writer.cancel()
            elif number == at and interruption:
                seen += writer.end("failed" if interruption == "fail" else "expired")
            if not writer.over:
                seen += writer.push(event)
        if not writer.over and writer.wanted:
            assert writer.run["status"] == "in_progress"
            found = [searched(each.call_id, "q", SearchOptions(), 0, ()) for each in writer.wanted]
            seen += writer.searched(found)
            if not writer.over:  # the model goes on
                for event in events_of(texts, [], finish):
                    seen += writer.push(event)
        if not writer.over:
            seen += writer.end("failed", error={"code": "server_error", "message": "It went"})
        run = writer.run
        check_turn(writer)
        if run["status"] != "requires_action":
            break
        functions = [f"call_{i}" for i, name in enumerate(calls) if name != "file_search"]
        wanted = {call["id"]: "out" for call in wanted_calls(run, functions)}
        step = with_outputs(writer.steps[-1], wanted, 9)
        made: Any = [call.get("function", {"output": "out"}) for call in step["step_details"]["tool_calls"]]
        assert [each["output"] for each in made] == ["out"] * len(calls)
        run = moved(run, "queued", 9)
        seen.append(RunEvent("thread.run.queued", run))
    check_events(seen)


def check_turn(writer: RunWriter) -> None:
    """All that a turn made has ended, but for calls that wait for their outputs."""
    status = writer.run["status"]
    assert writer.over
    open_steps = [step for step in writer.steps if step["status"] == "in_progress"]
    assert len(open_steps) == (status == "requires_action")
    assert all(message["status"] in ("completed", "incomplete") for message in writer.messages)
    for message in writer.messages:
        assert (message["status"] == "incomplete") == (message["incomplete_details"] is not None)
    if status == "completed":
        assert writer.messages
        assert writer.messages[-1]["status"] == "completed"
    if status not in ACTIVE:
        with pytest.raises(InvalidRequest, match=f"Cannot cancel run with status '{status}'"):
            writer.cancel()


def check_events(events: list[RunEvent]) -> None:
    """As the official client demands: made before added to, and each state one that may follow."""
    known: set[str] = set()
    state = "queued"
    for name, data in events:
        kind = data["object"]
        if kind.endswith(".delta"):
            assert data["id"] in known
        elif name.endswith(".created"):
            known.add(data["id"])
        elif kind == "thread.run":
            assert name == f"thread.run.{data['status']}"
            assert data["status"] == state or data["status"] in ALLOWED[state]  # type: ignore[index]
            state = data["status"]
        else:
            assert data["id"] in known
    assert state in (*TERMINAL, "requires_action", "queued")


@given(st.lists(st.sampled_from(sorted(ALLOWED)), max_size=8))
def test_no_state_follows_that_may_not(states: Any) -> None:
    run: RunObject = RUN
    for number, state in enumerate(states):
        if state in ALLOWED[run["status"]]:
            before = run
            run = moved(run, state, number)
            assert run["status"] == state
            assert run["started_at"] == (
                before["started_at"] if before["started_at"] is not None else run["started_at"]
            )
            assert (run["expires_at"] is None) == (state not in ACTIVE)
        else:
            with pytest.raises(ValueError, match="cannot become"):
                moved(run, state, number)


@pytest.mark.parametrize("status", sorted(ALLOWED))
def test_what_nobody_carries_out_has_ended(status: Any) -> None:
    run: Any = {**RUN, "status": status}
    assert as_it_is(run, 700, is_live=True) == run
    found = as_it_is(run, 700, is_live=False)
    expected = status if status in TERMINAL else "expired" if status == "requires_action" else "failed"
    assert found["status"] == expected
    waits: Any = {**RUN, "status": "requires_action"}
    assert as_it_is(waits, 600, is_live=False) == waits
    step: Any = {"status": "in_progress"}
    if status == "requires_action":
        assert step_as_it_is(step, found)["status"] == "expired"
