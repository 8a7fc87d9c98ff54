"""ChatParser: a model's text, piece by piece → text, thoughts and tool calls.

The daemon's side of `formats`: whatever protocol a chat came by, its answer is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kolosal.chat.calls import read_calls
from kolosal.chat.events import ChatEvent, Ended, TextPiece
from kolosal.chat.formats import SHAPES, CallShape, ToolFormat
from kolosal.chat.harmony import read_harmony
from kolosal.chat.tagged import string_arguments
from kolosal.chat.text_source import Reading, TextSource
from kolosal.chat.writer import EventWriter
from kolosal.schema import FinishReason, TokenDelta, Tool

_ID_CHARS = 24


class ChatParser:
    """Reads one turn. Every character is looked at a bounded number of times; nothing is parsed again per token.

    Broken calls are shown as text, unless their arguments had begun: those were streamed already and stay a call without
    a `CallEnd`; what follows them is text.
    """

    def __init__(
        self,
        tool_format: ToolFormat,
        thinking_tags: tuple[str, str] | None,
        *,
        tools: bool,
        schemas: Sequence[Tool] = (),
    ) -> None:
        """`tools`: whether any may be called; without, what looks like a call is text.

        `schemas`: these tools. A call of another is text, and strings are told from other values where the format does not;
        without, any name is taken for a tool's.
        """
        shape = SHAPES.get(tool_format)
        strings = {tool.name: string_arguments(tool) for tool in schemas}
        self._source = TextSource()
        self._writer = EventWriter(shape.id_chars if shape is not None else _ID_CHARS)
        self._reader = (
            read_harmony(self._source, self._writer, tools=tools, names=strings)
            if tool_format is ToolFormat.GPT_OSS
            else _read_turn(
                self._source,
                self._writer,
                thinking_tags,
                shape if tools else None,
                strings,
            )
        )

    def push(self, delta: TokenDelta) -> list[ChatEvent]:
        """What a delta adds; the last one gives `Ended`."""
        ends = delta.finish_reason is not None
        self._source.feed(delta.text)
        if ends:
            self._source.end()
        next(self._reader, None)
        if ends:
            self._writer.finish()
        events = self._writer.take()
        if delta.logprobs:
            events = _with_logprobs(events, delta)
        if delta.finish_reason is not None and delta.usage is not None:
            called = self._writer.calls_ended > 0 and delta.finish_reason is FinishReason.STOP
            reason = FinishReason.TOOL_CALLS if called else delta.finish_reason
            events.append(Ended(reason, delta.usage, delta.stop))
        return events


def _read_turn(
    source: TextSource,
    writer: EventWriter,
    tags: tuple[str, str] | None,
    shape: CallShape | None,
    strings: Mapping[str, frozenset[str]],
) -> Reading[None]:
    """Thoughts first, then text and calls."""
    if tags is None and shape is None:
        yield from source.until((), writer.verbatim)
        return
    writer.text((yield from source.blanks()))
    while tags is not None and (yield from source.starts_with(tags[0])):
        writer.begin_thinking()
        yield from source.until(tags[1:], writer.thinking)
        writer.end_thinking()
        writer.text((yield from source.blanks()))
    if shape is None:
        yield from source.until((), writer.text)
        return
    if not shape.trigger and (yield from source.peek()) == "{":
        yield from read_calls(source, writer, shape, "", strings)
    triggers = tuple(marker for marker in (shape.trigger, shape.prefix) if marker)
    while (trigger := (yield from source.until(triggers, writer.text))) is not None:
        yield from read_calls(source, writer, shape, trigger, strings)


def _with_logprobs(events: list[ChatEvent], delta: TokenDelta) -> list[ChatEvent]:
    """The events with the delta's log-probabilities at its first text."""
    for index, event in enumerate(events):
        if isinstance(event, TextPiece):
            return [*events[:index], TextPiece(event.text, delta.logprobs), *events[index + 1 :]]
    return [TextPiece("", delta.logprobs), *events]
