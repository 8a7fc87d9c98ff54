"""What a turn looks like in the Anthropic dialect: one message of content blocks, or the events that build it up.

Pure: from `ChatEvent`s and `Turn`s to JSON values and frames.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, assert_never

import orjson

from kolosal.chat.events import (
    CallBegin,
    CallEnd,
    CallPiece,
    ChatEvent,
    Ended,
    TextPiece,
    ThinkingPiece,
    Turn,
)
from kolosal.routes.anthropic.frames import PING, event_frame
from kolosal.schema import FinishReason, ToolCall, Usage

_ALPHANUMERIC = string.ascii_letters + string.digits
_ID_CHARS = 24
_NO_USAGE = Usage(0, 0)


def message_id() -> str:
    """The id of an answer: `msg_` and 24 letters and digits."""
    return f"msg_{''.join(secrets.choice(_ALPHANUMERIC) for _ in range(_ID_CHARS))}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What one answer has besides what the model makes."""

    id: str
    model: str
    max_tokens: int
    shows_thinking: bool = True
    """Whether the text of thoughts is part of the answer; their blocks always are."""

    def message(self, content: list[dict[str, Any]], ending: dict[str, Any], usage: Usage) -> dict[str, Any]:
        """A message; `ending` is what `stop_fields` gives."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            **ending,
            "usage": usage_body(usage),
        }

    def stop_fields(self, end: Ended | Turn) -> dict[str, Any]:
        """Why the turn ended."""
        return {"stop_reason": self._stop_reason(end), "stop_sequence": end.stop}

    def _stop_reason(self, end: Ended | Turn) -> str:
        match end.finish_reason:
            case FinishReason.TOOL_CALLS:
                return "tool_use"
            case FinishReason.LENGTH if end.usage.completion_tokens < self.max_tokens:
                return "model_context_window_exceeded"
            case FinishReason.LENGTH:
                return "max_tokens"
            case FinishReason.STOP | FinishReason.ABORT:
                return "end_turn" if end.stop is None else "stop_sequence"
            case _:
                assert_never(end.finish_reason)


def usage_body(usage: Usage) -> dict[str, int]:
    """The token counts. The prompt is told in two parts: what was computed, and what was found in the KV cache."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def whole_message(shape: Shape, turn: Turn) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    content: list[dict[str, Any]] = []
    if turn.thinking:
        content.append(_thinking_block(turn.thinking if shape.shows_thinking else ""))
    if turn.text.strip():
        content.append(_text_block(turn.text))
    content += [_call_block(call) for call in turn.calls]
    return shape.message(content, shape.stop_fields(turn), turn.usage)


def _text_block(text: str = "") -> dict[str, Any]:
    return {"type": "text", "text": text}


def _thinking_block(thinking: str = "") -> dict[str, Any]:
    return {"type": "thinking", "thinking": thinking, "signature": ""}


def _call_block(call: ToolCall) -> dict[str, Any]:
    return _tool_use_block(call.id, call.name, _object(call.arguments))


def _tool_use_block(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    shown_id = f"toolu_{call_id.removeprefix('call_')}" if call_id.startswith("call_") else call_id
    return {"type": "tool_use", "id": shown_id, "name": name, "input": arguments}


def _object(arguments: str) -> dict[str, Any]:
    """The arguments of a call; of one that was cut off by `max_tokens` there may be no whole object."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


class BlockEvents:
    """The events of one turn's content blocks: one block is open at a time.

    Text that is only whitespace, as models write it around their calls, makes no block of its own.
    """

    def __init__(self, *, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._index = -1
        self._open: str | None = None
        """The type of the open block."""
        self._blank = ""
        """Whitespace that comes with the text after it, if there is any."""

    @property
    def started(self) -> bool:
        """Whether any block has begun."""
        return self._index >= 0

    def push(self, event: ChatEvent) -> list[dict[str, Any]]:
        """What an event adds."""
        match event:
            case TextPiece():
                return self._text(event.text)
            case ThinkingPiece():
                began = self._begin("thinking", _thinking_block())
                if not (event.text and self._shows_thinking):
                    return began
                return [*began, self._delta({"type": "thinking_delta", "thinking": event.text})]
            case CallBegin():
                return [*self._end(), *self._begin("tool_use", _tool_use_block(event.id, event.name, {}))]
            case CallPiece():
                return [self._delta({"type": "input_json_delta", "partial_json": event.arguments})]
            case CallEnd() | Ended():
                return self._end()
            case _:
                assert_never(event)

    def _text(self, text: str) -> list[dict[str, Any]]:
        if self._open != "text":
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return []
        began = self._begin("text", _text_block())
        return [*began, self._delta({"type": "text_delta", "text": text})] if text else began

    def _begin(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        """Open a block unless one of that type is open."""
        if self._open == kind:
            return []
        ended = self._end()
        self._blank = ""
        self._open = kind
        self._index += 1
        return [*ended, {"type": "content_block_start", "index": self._index, "content_block": block}]

    def _end(self) -> list[dict[str, Any]]:
        """Close the open block, if there is one."""
        if self._open is None:
            return []
        signed = (
            [self._delta({"type": "signature_delta", "signature": ""})] if self._open == "thinking" else []
        )
        self._open = None
        return [*signed, {"type": "content_block_stop", "index": self._index}]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


async def message_frames(
    shape: Shape, events: AsyncIterator[tuple[int, ChatEvent]], usage: Usage | None
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream. `usage` is what is known of it when the stream begins."""
    blocks = BlockEvents(shows_thinking=shape.shows_thinking)
    unended = {"stop_reason": None, "stop_sequence": None}
    yield event_frame({"type": "message_start", "message": shape.message([], unended, usage or _NO_USAGE)})
    async for _, event in events:
        for block_event in blocks.push(event):
            yield event_frame(block_event)
            if block_event["type"] == "content_block_start" and block_event["index"] == 0:
                yield PING
        if isinstance(event, Ended):
            ending = {"delta": shape.stop_fields(event), "usage": usage_body(event.usage)}
            yield event_frame({"type": "message_delta", **ending})
            yield event_frame({"type": "message_stop"})
