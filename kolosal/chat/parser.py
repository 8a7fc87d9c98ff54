"""ChatParser: a model's text, piece by piece → text, thoughts and tool calls.

The daemon's side of `formats`: whatever protocol a chat came by, its answer is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kolosal.chat.calls import read_calls
from kolosal.chat.events import CallBegin, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.chat.formats import SHAPES, CallShape, ToolFormat
from kolosal.chat.harmony import read_harmony
from kolosal.chat.tagged import string_arguments
from kolosal.chat.text_source import Reading, TextSource
from kolosal.chat.writer import EventWriter
from kolosal.schema import FinishReason, TokenDelta, Tool


class ChatParser:
    """Reads one turn. Every character is looked at a bounded number of times; nothing is parsed again per token.

    Broken calls are shown as text, unless their arguments had begun: those were streamed already and stay a call without
    a `CallEnd`. The beginning of a call that the answer's end cut off is no text.
    """

    def __init__(
        self,
        tool_format: ToolFormat,
        thinking_tags: tuple[str, str] | None,
        tools: Sequence[Tool] = (),
        *,
        forced: bool = False,
    ) -> None:
        """`tools`: those that may be called; what looks like a call of another is text. `forced`: the turn is nothing but calls."""
        shape = SHAPES.get(tool_format)
        strings = {tool.name: string_arguments(tool) for tool in tools}
        self._source = TextSource()
        self._writer = EventWriter(short_ids=shape is not None and shape.short_ids, forced=forced)
        self._reader = (
            read_harmony(self._source, self._writer, strings)
            if shape is None
            else _read_turn(self._source, self._writer, thinking_tags, shape, strings)
        )
        self._thinking_tokens = 0
        self._thought = self._answered = False

    @property
    def over(self) -> bool:
        """Whether the turn is over though the model goes on: calls were made, and text or one of them again came after."""
        return self._writer.over

    def push(self, delta: TokenDelta) -> list[ChatEvent]:
        """What a delta adds; the last one gives `Ended`."""
        ends = delta.finish_reason is not None
        self._source.feed(delta.text)
        if ends:
            self._source.end(cut=delta.finish_reason is FinishReason.LENGTH or delta.stop is not None)
        next(self._reader, None)
        if ends:
            self._writer.finish()
        events = self._writer.take()
        if not self._answered:
            self._count_thoughts(len(delta.tokens), events)
        if delta.logprobs:
            events = _with_logprobs(events, delta)
        if delta.finish_reason is not None and delta.usage is not None:
            reason = FinishReason.TOOL_CALLS if self._writer.called else delta.finish_reason
            thinking_tokens = self._thinking_tokens if self._thought else 0
            events.append(Ended(reason, delta.usage, delta.stop, thinking_tokens))
        return events

    def _count_thoughts(self, n_tokens: int, events: Sequence[ChatEvent]) -> None:
        """Tokens are thoughts until the answer begins. Those of a delta that has both are divided by its characters: that
        happens where its reader was slow, or takes a turn whole."""
        thought = answer = 0
        for event in events:
            match event:
                case ThinkingPiece(text=text):
                    thought += len(text)
                case TextPiece(text=text) | CallBegin(name=text) | CallPiece(arguments=text):
                    answer += len(text)
                case _:
                    pass
        self._thought = self._thought or thought > 0
        self._answered = answer > 0
        self._thinking_tokens += round(n_tokens * (thought / (thought + answer))) if answer else n_tokens


def _read_turn(
    source: TextSource,
    writer: EventWriter,
    tags: tuple[str, str] | None,
    shape: CallShape,
    strings: Mapping[str, frozenset[str]],
) -> Reading[None]:
    """Thoughts first, then text and calls; `strings` as for `read_calls`."""
    if tags is None and not strings:
        yield from source.until((), writer.verbatim)
        return
    writer.text((yield from source.blanks()))
    while tags is not None and (yield from source.starts_with(tags[0])):
        writer.begin_thinking()
        yield from source.until(tags[1:], writer.thinking)
        writer.end_thinking()
        writer.text((yield from source.blanks()))
    if tags is not None:
        source.take_cut_marker(tags)
    if strings and not shape.trigger and (yield from source.peek()) == "{":
        yield from read_calls(source, writer, shape, "", strings)
    triggers = tuple(marker for marker in (shape.trigger, shape.prefix) if marker and strings)
    while (trigger := (yield from source.until(triggers, writer.text))) is not None:
        yield from read_calls(source, writer, shape, trigger, strings)


def _with_logprobs(events: list[ChatEvent], delta: TokenDelta) -> list[ChatEvent]:
    """The events with the delta's log-probabilities at its first text."""
    for index, event in enumerate(events):
        if isinstance(event, TextPiece):
            return [*events[:index], TextPiece(event.text, delta.logprobs), *events[index + 1 :]]
    return [TextPiece("", delta.logprobs), *events]
