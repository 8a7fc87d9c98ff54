"""Reading tool calls that are written as text around a name and arguments: all formats but gpt-oss's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from kolosal.chat.formats import CallShape
from kolosal.chat.json_scanner import JsonScanner
from kolosal.chat.notation import read_notation
from kolosal.chat.tagged import read_tagged
from kolosal.chat.text_source import Reading, TextSource
from kolosal.chat.writer import EventWriter
from kolosal.schema import MAX_TOOL_NAME_CHARS

_RAW_NAME = re.compile(r"[^\s<>\[{]+")
_ID = re.compile(r"[A-Za-z0-9_-]+")
_MAX_ID_CHARS = 64
_CALL_ID = "[CALL_ID]"


def read_calls(
    source: TextSource,
    writer: EventWriter,
    shape: CallShape,
    begun: str,
    strings: Mapping[str, frozenset[str]],
) -> Reading[None]:
    """All calls that follow each other, after their announcement `begun` was taken. What is no call is shown as text, but for
    one that was cut off before its arguments.

    `strings`: for each tool, the arguments that are strings.
    """
    head = (shape.opens + shape.before).removeprefix(begun if begun == shape.trigger else "")
    while True:
        source.note()
        found = yield from _head(source, shape, head)
        skipped = source.noted()
        if found is None or found[0] not in strings:
            if not source.cut_off:
                writer.text(begun + skipped)
            return
        writer.begin_call(*found)
        if shape.tagged:
            complete = yield from read_tagged(source, strings[found[0]], writer.arguments)
        elif shape.quote:
            complete = yield from read_notation(source, shape.quote, writer.arguments)
        else:
            complete = yield from source.json(JsonScanner(), writer.arguments)
        if not complete:
            return
        writer.end_call()
        if not (yield from _tail(source, writer, shape)):
            return
        gap = yield from source.blanks()
        next_call = yield from _next(source, shape)
        if next_call is None:
            writer.text(gap)
            return
        begun, head = next_call
        if not begun:
            return


def _head(source: TextSource, shape: CallShape, head: str) -> Reading[tuple[str, str] | None]:
    """A call up to its arguments: its name and, where the model gives one, its id; None where it is broken."""
    call_id = ""
    if not (yield from source.matches(head)):
        return None
    yield from source.blanks()
    name = yield from (
        _quoted_name(source) if shape.quoted else source.while_in(_RAW_NAME, MAX_TOOL_NAME_CHARS)
    )
    if not 0 < len(name) <= MAX_TOOL_NAME_CHARS:
        return None
    if _CALL_ID in shape.markers and (yield from source.starts_with(_CALL_ID)):
        call_id = yield from source.while_in(_ID, _MAX_ID_CHARS)
    if not (yield from source.matches(shape.between)):
        return None
    yield from source.blanks()
    return (name, call_id) if (yield from source.peek()) == ("<" if shape.tagged else "{") else None


def _quoted_name(source: TextSource) -> Reading[str]:
    """A name written as a JSON string; empty where it is none."""
    pieces: list[str] = []
    if not (yield from source.json(JsonScanner('"'), pieces.append)):
        return ""
    name: str = json.loads("".join(pieces))
    return name if name.isprintable() else ""


def _tail(source: TextSource, writer: EventWriter, shape: CallShape) -> Reading[bool]:
    """What stands after the arguments; False where something else does, which is shown."""
    source.note()
    after = shape.after
    if shape.quoted:
        complete = yield from source.json(JsonScanner(inside=True), lambda _: None)
        if not complete:
            writer.text(source.noted())
            return False
        source.note()
        after = after.removeprefix("}")
    complete = yield from source.matches(after)
    rest = source.noted()
    if not complete:
        writer.text(rest)
    return complete


def _next(source: TextSource, shape: CallShape) -> Reading[tuple[str, str] | None]:
    """How the next call is announced and goes on; empty where the calls are closed, None where something else stands."""
    if shape.closes and (yield from source.starts_with(shape.closes)):
        return "", ""
    announcement = shape.separator.strip() or next(
        marker for marker in shape.markers if shape.before.startswith(marker)
    )
    if (yield from source.starts_with(announcement)):
        return announcement, shape.before.removeprefix(announcement)
    return None
