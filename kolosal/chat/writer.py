"""EventWriter: collects what the readers of one turn find, in as few events as say it."""

from __future__ import annotations

import secrets
import string
from enum import Enum, auto
from typing import TypeAlias

from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, TextPiece, ThinkingPiece
from kolosal.chat.formats import SHORT_ID_CHARS
from kolosal.chat.json_scanner import BLANK

_ALPHABET = string.ascii_letters + string.digits
_LONG_ID_CHARS = 24

_Piece: TypeAlias = TextPiece | ThinkingPiece | CallPiece
"""What grows part by part."""


class _Last(Enum):
    START = auto()
    TEXT = auto()
    THINKING = auto()
    CALL = auto()


class EventWriter:
    """What was found since the events were last taken.

    White space between text and calls, and around thoughts, belongs to how models write and not to what they say: it is
    held until it is known to stand within text.
    """

    def __init__(self, *, short_ids: bool) -> None:
        """`short_ids`: see `CallShape`; else the ids made for calls look like the OpenAI API's."""
        self._short_ids = short_ids
        self._events: list[ChatEvent] = []
        self._kind: type[_Piece] | None = None
        self._parts: list[str] = []
        self._gap: list[str] = []
        self._last = _Last.START
        self._index = -1
        self._fresh = False
        self.calls_ended = 0
        """Calls that are complete."""

    def take(self) -> list[ChatEvent]:
        """The events since the last time: more of the same kind is one event."""
        self._end_piece()
        events, self._events = self._events, []
        return events

    def text(self, text: str) -> None:
        """More of the answer."""
        shown = self._without_edges(text, keeps_front=self._last is not _Last.THINKING)
        if shown:
            self._last = _Last.TEXT
            self._more(TextPiece, shown)

    def verbatim(self, text: str) -> None:
        """More of an answer that can hold nothing but text: shown as it comes."""
        self._more(TextPiece, text)

    def begin_thinking(self) -> None:
        """Thoughts begin; white space before them is dropped."""
        self._gap.clear()
        self._last = _Last.THINKING
        self._fresh = True

    def thinking(self, text: str) -> None:
        """More of the thoughts."""
        shown = self._without_edges(text, keeps_front=not self._fresh)
        if shown:
            self._fresh = False
            self._more(ThinkingPiece, shown)

    def end_thinking(self) -> None:
        """Thoughts are over; white space after them is dropped."""
        self._gap.clear()

    def begin_call(self, name: str, call_id: str = "") -> None:
        """A call begins; `call_id` is what the model itself calls it."""
        self._gap.clear()
        self._last = _Last.CALL
        self._end_piece()  # of a call before it that broke off: it has that one's index
        self._index += 1
        self._add(CallBegin(self._index, call_id or self._new_id(), name))

    def arguments(self, text: str) -> None:
        """More of the call's arguments."""
        self._more(CallPiece, text)

    def end_call(self) -> None:
        """The call is complete."""
        self.calls_ended += 1
        self._add(CallEnd(self._index))

    def finish(self) -> None:
        """The turn is over: white space that ends its text is shown."""
        if self._gap and self._last in (_Last.START, _Last.TEXT):
            self._more(TextPiece, "".join(self._gap))
            self._gap.clear()

    def _without_edges(self, text: str, *, keeps_front: bool) -> str:
        """The text with the white space held before it, without what ends it, which is held now."""
        core = text.rstrip(BLANK)
        if not core:
            if text:
                self._gap.append(text)
            return ""
        shown = "".join((*self._gap, core)) if keeps_front else core.lstrip(BLANK)
        tail = text[len(core) :]
        self._gap = [tail] if tail else []
        return shown

    def _new_id(self) -> str:
        n_chars = SHORT_ID_CHARS if self._short_ids else _LONG_ID_CHARS
        word = "".join(secrets.choice(_ALPHABET) for _ in range(n_chars))
        return word if self._short_ids else f"call_{word}"

    def _add(self, event: CallBegin | CallEnd) -> None:
        self._end_piece()
        self._events.append(event)

    def _more(self, kind: type[_Piece], text: str) -> None:
        """Add to the piece that grows, or begin another one."""
        if kind is not self._kind:
            self._end_piece()
            self._kind = kind
        self._parts.append(text)

    def _end_piece(self) -> None:
        """Make an event of the piece that grows: once, since text that grows part by part is copied each time."""
        text = "".join(self._parts)
        if self._kind is TextPiece:
            self._events.append(TextPiece(text))
        elif self._kind is ThinkingPiece:
            self._events.append(ThinkingPiece(text))
        elif self._kind is CallPiece:
            self._events.append(CallPiece(self._index, text))
        self._kind, self._parts = None, []
