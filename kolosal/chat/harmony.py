"""Reading gpt-oss's turns: messages in channels, each a header and a body (https://github.com/openai/harmony)."""

from __future__ import annotations

import re
from collections.abc import Collection

from kolosal.chat.json_scanner import JsonScanner
from kolosal.chat.text_source import Reading, TextSource
from kolosal.chat.writer import EventWriter

_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_MESSAGE = "<|message|>"
_HEADER_STARTS = ("<|start|>", "<|channel|>", "assistant<|", "assistant to=", "to=")
"""The first words of headers; the first one of a turn, and those after an end, lack what the prompt or the end has."""
_CHANNEL = re.compile(r"<\|channel\|>\s*([a-z]+)")
_FUNCTION = re.compile(r"\bto=functions\.([^\s<]{1,256})")


def read_harmony(source: TextSource, writer: EventWriter, tools: Collection[str]) -> Reading[None]:
    """One turn: thoughts in the channel `analysis`, calls where one of the `tools` is the recipient, all else is text."""
    while (yield from source.more()):
        blanks = yield from source.blanks()
        source.note()
        header = yield from _header(source)
        skipped = source.noted()
        if source.cut_off and not header:
            return
        channel, function = _CHANNEL.search(header), _FUNCTION.search(header)
        if function is not None:
            yield from _call(source, writer, function[1] if function[1] in tools else "", skipped)
        elif channel is not None and channel[1] == "analysis":
            writer.begin_thinking()
            yield from source.until(_ENDS, writer.thinking)
            writer.end_thinking()
        else:
            writer.text(blanks + ("" if channel else skipped))
            yield from source.until(_ENDS, writer.text)


def _header(source: TextSource) -> Reading[str]:
    """What stands before a message; empty where text comes without one."""
    for start in _HEADER_STARTS:
        if (yield from source.starts_with(start)):
            pieces = [start]
            ended = yield from source.until((_MESSAGE,), pieces.append)
            return "".join(pieces) if ended else ""
    source.take_cut_marker(_HEADER_STARTS)
    return ""


def _call(source: TextSource, writer: EventWriter, name: str, skipped: str) -> Reading[None]:
    yield from source.blanks()
    first = yield from source.peek()
    if name and source.cut_off:
        return
    if not name or first != "{":
        writer.text(skipped)
        yield from source.until(_ENDS, writer.text)
        return
    writer.begin_call(name)
    if (yield from source.json(JsonScanner(), writer.arguments)):
        writer.end_call()
    yield from source.until(_ENDS, writer.text)
