"""Thoughts are closed at their bound, whatever the tokens are that they are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.chat.events import whole_turn
from kolosal.chat.formats import HARMONY_THINKING, ToolFormat, thought_closing
from kolosal.chat.parser import ChatParser
from kolosal.engines.worker.thought_budget import ThoughtBudget
from kolosal.schema import FinishReason, TokenDelta, Usage

TAGS = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
    HARMONY_THINKING,
]
MOST_WAITED = 3
"""Tokens of one byte that a code point may still need."""


class Turn:
    """A model of bytes, whose words come as it wants until it is told what to say."""

    def __init__(self, tags: tuple[str, str], budget: int, *, in_thoughts: bool = False) -> None:
        self.harmony = tags == HARMONY_THINKING
        closing = thought_closing(tags).encode()
        self.state = ThoughtBudget(budget, tags, closing, in_thoughts=in_thoughts, channels=self.harmony)
        self.said = b""

    def say(self, *pieces: bytes) -> Turn:
        """Each piece is a token of its own; what is forced comes first, a byte a token."""
        for piece in pieces:
            self.finish_forced()
            self._push(-1, piece)
        self.finish_forced()
        return self

    def finish_forced(self) -> None:
        while (token := self.state.forced) is not None:
            self._push(token, bytes([token]))

    def _push(self, token: int, piece: bytes) -> None:
        self.said += piece
        self.state.push(token, piece)


@pytest.mark.parametrize("tags", TAGS)
def test_a_thought_is_closed_with_its_marker_and_the_answer_begins(tags: tuple[str, str]) -> None:
    turn = Turn(tags, 3).say(tags[0].encode(), b"a", b"b", b"c", b"answer", b" d")
    assert turn.said.decode() == f"{tags[0]}abc{thought_closing(tags)}answer d"
    assert turn.state.n_tokens == 3


def test_a_budget_that_is_not_spent_changes_nothing() -> None:
    turn = Turn(TAGS[0], 3).say(
        b"\n<thi", b"nk>", b"a", b"b</th", b"ink>", b"c", b"d", b"e", b"<think>", b"f"
    )
    assert turn.said == b"\n<think>ab</think>cde<think>f"
    assert Turn(TAGS[0], 1).say(b"text", b"<think>", b"a", b"b").said == b"text<think>ab"


def test_no_thoughts_means_none() -> None:
    closing = thought_closing(TAGS[0])
    assert Turn(TAGS[0], 0).say(b"<think>", b"answer").said.decode() == f"<think>{closing}answer"
    assert Turn(TAGS[0], 0, in_thoughts=True).say(b"answer").said.decode() == f"{closing}answer"


def test_thoughts_share_one_budget() -> None:
    turn = Turn(TAGS[0], 2).say(b"<think>", b"a", b"</think>", b"<think>", b"b", b"c")
    assert turn.said.decode() == f"<think>a</think><think>{thought_closing(TAGS[0])}bc"


def test_harmony_may_think_after_a_message_but_no_more_than_it_may() -> None:
    said = b"<|channel|>commentary<|message|>x<|end|><|start|>assistant<|channel|>analysis<|message|>"
    turn = Turn(HARMONY_THINKING, 1).say(said, b"a", b"b")
    assert turn.said == said + b"a" + thought_closing(HARMONY_THINKING).encode() + b"b"


def test_a_grammar_that_does_not_allow_it_is_not_broken() -> None:
    state = ThoughtBudget(0, TAGS[0], [1, 2], in_thoughts=True)
    assert state.forced == 1
    state.give_up()
    assert state.forced is None
    state.push(7, b"a")
    assert state.forced == 1


@given(
    tags=st.sampled_from(TAGS[:3]), budget=st.integers(0, 12), in_thoughts=st.booleans(),
    text=st.text("ab</think>[] \né😀", max_size=30), cuts=st.lists(st.integers(1, 4), max_size=60),
    thinks=st.booleans(),
)  # fmt: skip
def test_no_thought_is_longer_than_its_bound(
    tags: tuple[str, str], budget: int, in_thoughts: bool, text: str, cuts: list[int], thinks: bool
) -> None:
    """However the text is cut into tokens, nothing is lost, and no more is read as thoughts than was allowed."""
    data = ((tags[0] if thinks and not in_thoughts else "") + text + "🙂" * 9).encode()
    sizes = [*cuts, *[1] * len(data)]
    pieces = []
    while data:
        size = sizes.pop(0)
        pieces.append(data[:size])
        data = data[size:]
    turn = Turn(tags, budget, in_thoughts=in_thoughts).say(*pieces)
    said = turn.said.decode(errors="replace")
    assert turn.state.n_tokens <= budget + MOST_WAITED
    parser = ChatParser(ToolFormat.HERMES, tags)
    front = tags[0] if in_thoughts else ""
    events = parser.push(TokenDelta(front + said, (1,), FinishReason.STOP, Usage(1, 1)))
    read = whole_turn(events)
    assert len(read.thinking.encode()) <= 4 * (budget + MOST_WAITED + 1) + len(tags[0])
