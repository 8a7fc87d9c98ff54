"""PlainJsonCallParser: a turn's text, piece by piece → what is shown of it, and a call that was written as plain JSON.

Some models write a call as `{"tool": …, "parameters": {…}}`, bare, in a block of Markdown or between tags, whatever format
their template has. Text that may become such a call is held back until that is decided, so that none of it is shown.
Thoughts are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kolosal.chat.events import parsed_arguments
from kolosal.chat.json_scanner import JsonScanner
from kolosal.chat.text_source import Reading, TextSource

_THOUGHT, _THOUGHT_END = "<think>", "</think>"
_BLOCK, _TAG = "```", "<tool_call>"
_NAMES = ("tool", "name")
_ARGUMENTS = ("parameters", "arguments")


@dataclass(frozen=True, slots=True)
class PlainJsonCall:
    """A call as it was written."""

    tool: str
    parameters: dict[str, Any]


class PlainJsonCallParser:
    """Reads one turn. `call` is the first object in it that `is_call` takes for one; what follows that is dropped."""

    def __init__(self, is_call: Callable[[PlainJsonCall], bool] | None) -> None:
        """`is_call`: whether an object of the right form calls a tool; None: there are no tools, and objects are text."""
        self.call: PlainJsonCall | None = None
        self._is_call = is_call
        self._source = TextSource()
        self._shown: list[str] = []
        self._began = False
        self._reader = self._read()

    def push(self, text: str) -> str:
        """What more text shows."""
        self._source.feed(text)
        return self._go_on()

    def end(self) -> str:
        """What is shown of the rest, which will not become anything else any more."""
        self._source.end()
        return self._go_on()

    def _go_on(self) -> str:
        next(self._reader, None)
        shown, self._shown = self._shown, []
        return "".join(shown)

    def _show(self, text: str) -> None:
        """White space before the first text is no part of an answer."""
        text = text if self._began else text.lstrip()
        if text:
            self._began = True
            self._shown.append(text)

    def _read(self) -> Reading[None]:
        markers = (_THOUGHT,) if self._is_call is None else (_THOUGHT, _TAG, _BLOCK, "{")
        while (marker := (yield from self._source.until(markers, self._show))) is not None:
            if marker == _THOUGHT:
                yield from self._thought()
            elif (yield from self._object(marker)):
                yield from self._source.until((), lambda _: None)

    def _thought(self) -> Reading[None]:
        """One that never ends was cut off, unless text came before: then somebody writes about tags."""
        pieces: list[str] = []
        end = yield from self._source.until((_THOUGHT_END,), pieces.append)
        if end is None and self._began:
            self._show(_THOUGHT + "".join(pieces))

    def _object(self, marker: str) -> Reading[bool]:
        """What begins with a marker: True where it is a call, which is kept; all else is shown."""
        self._source.note()
        if marker == _BLOCK:
            yield from self._source.starts_with("json")
        if marker != "{":
            yield from self._source.blanks()
            if not (yield from self._source.starts_with("{")):
                self._show(marker + self._source.noted())
                return False
        scanner = JsonScanner()
        scanner.scan("{", 0)
        pieces = ["{"]
        complete = yield from self._source.json(scanner, pieces.append)
        written = marker + self._source.noted()
        call = as_call("".join(pieces)) if complete else None
        if call is None or self._is_call is None or not self._is_call(call):
            self._show(written)
            return False
        self.call = call
        return True


def as_call(text: str) -> PlainJsonCall | None:
    """An object of the form of a call; None where it has another."""
    value = parsed_arguments(text)
    if value is None:
        return None
    name = next((value[key] for key in _NAMES if key in value), None)
    parameters = next((value[key] for key in _ARGUMENTS if key in value), None)
    if isinstance(name, str) and isinstance(parameters, dict):
        return PlainJsonCall(name, parameters)
    return None
