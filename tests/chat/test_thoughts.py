"""How many of a turn's tokens are thoughts: those before the answer."""

from __future__ import annotations

import pytest

from kolosal.chat.events import Ended
from kolosal.chat.formats import ToolFormat
from kolosal.chat.parser import ChatParser
from kolosal.schema import FinishReason, TokenDelta, TokenLogprob, TokenLogprobs, Usage
from tests.chat.recorded import THINK, TOOLS

LOGPROBS = (TokenLogprobs(TokenLogprob(1, "a", -0.5)),)
"""Of a token whose text is held back: they come with an empty piece of text, which is no answer."""


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([(1, ""), (1, "<think>aaa"), (1, "</think>"), (1, "b"), (5, "bb"), (0, "")], 3),
        ([(1, ""), (1, "b"), (0, "")], 0),
        ([(2, "<think>aaa</think><tool_call>"), (1, '{"name": "f", "arguments": {'), (0, "")], 2),
        ([(8, "<think>aaa</think>b")], 6),
        ([(3, "<think>aaa"), (0, "")], 3),
        ([(0, "")], 0),
    ],
)
def test_tokens_before_the_answer_are_thoughts(deltas: list[tuple[int, str]], expected: int) -> None:
    parser = ChatParser(ToolFormat.HERMES, THINK, TOOLS)
    *before, (n_last, last) = deltas
    for n_tokens, text in before:
        parser.push(TokenDelta(text, tuple(range(n_tokens)), logprobs=LOGPROBS[:n_tokens]))
    end = parser.push(TokenDelta(last, tuple(range(n_last)), FinishReason.STOP, Usage(1, 9)))[-1]

    assert isinstance(end, Ended)
    assert end.thinking_tokens == expected
