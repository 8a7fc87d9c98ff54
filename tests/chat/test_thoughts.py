"""ThoughtCounter: tokens before the answer count as thoughts."""

from __future__ import annotations

import pytest

from kolosal.chat.events import CallBegin, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.chat.thoughts import ThoughtCounter
from kolosal.schema import FinishReason, TokenDelta, Usage

ENDED = Ended(FinishReason.STOP, Usage(1, 9))
THOUGHT, TEXT, NOTHING = ThinkingPiece("aaa"), TextPiece("b"), TextPiece("")


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([(1, []), (1, [THOUGHT]), (1, []), (1, [TEXT]), (5, [TEXT]), (0, [ENDED])], 3),
        ([(1, []), (1, [TEXT]), (0, [ENDED])], 0),
        ([(1, [THOUGHT]), (1, [NOTHING]), (1, [CallBegin(0, "c", "f")]), (0, [ENDED])], 2),
        ([(8, [THOUGHT, TEXT, ENDED])], 6),
        ([(3, [THOUGHT]), (0, [ENDED])], 3),
        ([(0, [ENDED])], 0),
    ],
)
def test_tokens_before_the_answer_are_thoughts(
    deltas: list[tuple[int, list[ChatEvent]]], expected: int
) -> None:
    counter = ThoughtCounter()
    made = [
        event
        for count, events in deltas
        for event in counter.count(TokenDelta("", tuple(range(count))), events)
    ]
    assert isinstance(made[-1], Ended)
    assert made[-1].thinking_tokens == expected
    assert made[:-1] == [event for _, events in deltas for event in events][:-1]
