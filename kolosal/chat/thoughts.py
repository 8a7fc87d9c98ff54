"""ThoughtCounter: how many of a turn's tokens were thoughts: what the OpenAI API calls reasoning tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kolosal.chat.events import CallBegin, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.schema import TokenDelta


class ThoughtCounter:
    """Counts one turn, delta by delta: thoughts are all tokens before the first one of the answer, markers included.

    A delta that has both is divided by its characters: that happens where its reader was slow, or takes a turn whole.
    """

    def __init__(self) -> None:
        self._tokens = 0
        self._thought = False
        self._answered = False

    def count(self, delta: TokenDelta, events: Sequence[ChatEvent]) -> list[ChatEvent]:
        """The delta's events, with the count in `Ended`."""
        if not self._answered:
            thought = sum(len(event.text) for event in events if isinstance(event, ThinkingPiece))
            answer = sum(_answer_chars(event) for event in events)
            self._thought = self._thought or thought > 0
            self._answered = answer > 0
            share = 1.0 if answer == 0 else thought / (thought + answer)
            self._tokens += round(len(delta.tokens) * share)
        tokens = self._tokens if self._thought else 0
        return [
            replace(event, thinking_tokens=tokens) if isinstance(event, Ended) else event for event in events
        ]


def _answer_chars(event: ChatEvent) -> int:
    match event:
        case TextPiece(text=text) | CallBegin(name=text) | CallPiece(arguments=text):
            return len(text)
        case _:
            return 0
