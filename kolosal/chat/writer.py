"""EventWriter: collects what the readers of one turn find, in as few events as say it."""

from __future__ import annotations

import secrets
import string
from enum import Enum, auto
from typing import TypeAlias

from kolosal.chat.events import (
    CallBegin,
    CallEnd,
    CallKey,
    CallPiece,
    ChatEvent,
    TextPiece,
    ThinkingPiece,
    call_key,
    parsed_arguments,
)
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

    The first call is shown as it comes. Each further one is shown when it is complete, so that one that the answer's end cuts off,
    or that was made before, never was. Text after calls is none of the answer.
    """

    def __init__(self, *, short_ids: bool, forced: bool) -> None:
        """`short_ids`: see `CallShape`; else the ids made for calls look like the OpenAI API's. `forced`: no text is shown."""
        self._short_ids = short_ids
        self._forced = forced
        self._events: list[ChatEvent] = []
        self._kind: type[_Piece] | None = None
        self._parts: list[str] = []
        self._gap: list[str] = []
        self._last = _Last.START
        self._index = -1
        self._name = ""
        self._fresh = False
        self._further: CallBegin | None = None
        """A call that is not the first, and is not complete."""
        self._arguments: list[str] = []
        self._made: set[CallKey] = set()
        self.over = False
        """A complete call was made, and after it the model does something else than to make another: its turn is over."""

    def take(self) -> list[ChatEvent]:
        """The events since the last time: more of the same kind is one event."""
        self._end_piece()
        events, self._events = self._events, []
        return events

    def text(self, text: str) -> None:
        """More of the answer."""
        if self._index >= 0 or self._forced:
            self.over = self.over or (self.called and not text.isspace() and text != "")
            return
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
        self._arguments.clear()
        begin = CallBegin(self._index + 1, call_id or self._new_id(), name)
        if self._index >= 0:
            self._further = begin
            return
        self._begin(begin)

    def arguments(self, text: str) -> None:
        """More of the call's arguments."""
        self._arguments.append(text)
        if self._further is None:
            self._more(CallPiece, text)

    def end_call(self) -> None:
        """The call is complete."""
        arguments = "".join(self._arguments)
        begin, self._further = self._further, None
        key = _key(self._name if begin is None else begin.name, arguments)
        self.over = self.over or key in self._made
        if self.over:
            return
        self._made.add(key)
        if begin is not None:
            self._begin(begin)
            self._more(CallPiece, arguments)
        self._add(CallEnd(self._index))

    @property
    def called(self) -> bool:
        """Whether a call is complete."""
        return bool(self._made)

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

    def _begin(self, begin: CallBegin) -> None:
        self._end_piece()  # of a call before it that broke off: it has that one's index
        self._index, self._name = begin.index, begin.name
        self._add(begin)

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


def _key(name: str, arguments: str) -> CallKey:
    """What makes two calls the same; of arguments that could not be written out again, their text."""
    parsed = parsed_arguments(arguments)
    return (name, arguments.encode(errors="surrogatepass")) if parsed is None else call_key(name, parsed)
