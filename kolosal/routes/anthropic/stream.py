"""The events of a streamed message: https://docs.anthropic.com/en/docs/build-with-claude/streaming. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Literal, TypeAlias, assert_never

from typing_extensions import TypedDict

from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.http.sse import event_frame
from kolosal.routes.anthropic.encode import (
    AnthropicMessage,
    ContentBlock,
    MessageEncoder,
    MessageUsage,
    StopFields,
    thinking_block,
    tool_use_block,
    usage_body,
)
from kolosal.schema import Usage

PING = event_frame({"type": "ping"})
"""Sent after the first block has begun, and while there is nothing else to send."""

_NO_USAGE = Usage(0, 0)


class MessageStart(TypedDict):
    """The first event: a message without content."""

    type: Literal["message_start"]
    message: AnthropicMessage


class ContentBlockStart(TypedDict):
    """A block begins."""

    type: Literal["content_block_start"]
    index: int
    content_block: ContentBlock


class TextDelta(TypedDict):
    """More text."""

    type: Literal["text_delta"]
    text: str


class ThinkingDelta(TypedDict):
    """More thoughts."""

    type: Literal["thinking_delta"]
    thinking: str


class SignatureDelta(TypedDict):
    """The end of a block of thoughts."""

    type: Literal["signature_delta"]
    signature: str


class InputJsonDelta(TypedDict):
    """More of a call's arguments, as JSON text."""

    type: Literal["input_json_delta"]
    partial_json: str


BlockDelta: TypeAlias = TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class ContentBlockDelta(TypedDict):
    """The open block grows."""

    type: Literal["content_block_delta"]
    index: int
    delta: BlockDelta


class ContentBlockStop(TypedDict):
    """The open block is complete."""

    type: Literal["content_block_stop"]
    index: int


BlockEvent: TypeAlias = ContentBlockStart | ContentBlockDelta | ContentBlockStop


class MessageDelta(TypedDict):
    """Why the message ended, and the final token counts."""

    type: Literal["message_delta"]
    delta: StopFields
    usage: MessageUsage


async def message_frames(
    encoder: MessageEncoder, events: AsyncIterator[tuple[int, ChatEvent]], usage: Usage | None
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream. `usage` is what is known of it when the stream begins."""
    blocks = BlockEvents(shows_thinking=encoder.shows_thinking)
    message = encoder.message([], {"stop_reason": None, "stop_sequence": None}, usage or _NO_USAGE)
    yield event_frame(MessageStart(type="message_start", message=message))
    async for _, event in events:
        for block_event in blocks.push(event):
            yield event_frame(block_event)
            if block_event["type"] == "content_block_start" and block_event["index"] == 0:
                yield PING
        if isinstance(event, Ended):
            delta, usage_now = encoder.stop_fields(event), usage_body(event.usage)
            yield event_frame(MessageDelta(type="message_delta", delta=delta, usage=usage_now))
            yield event_frame({"type": "message_stop"})


class BlockEvents:
    """The events of one turn's content blocks: one block is open at a time.

    Text that is only whitespace, as models write it around their calls, makes no block of its own.
    """

    def __init__(self, *, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._index = -1
        self._open: Literal["text", "thinking", "tool_use"] | None = None
        """The type of the open block."""
        self._blank = ""
        """Whitespace that comes with the text after it, if there is any."""

    def push(self, event: ChatEvent) -> list[BlockEvent]:
        """What an event adds."""
        match event:
            case TextPiece():
                return self._text(event.text)
            case ThinkingPiece():
                began = [] if self._open == "thinking" else self._begin(thinking_block())
                if not (event.text and self._shows_thinking):
                    return began
                return [*began, self._delta({"type": "thinking_delta", "thinking": event.text})]
            case CallBegin():
                return self._begin(tool_use_block(event.id, event.name, {}))
            case CallPiece():
                return [self._delta({"type": "input_json_delta", "partial_json": event.arguments})]
            case CallEnd() | Ended():
                return self._end()
            case _:
                assert_never(event)

    def _text(self, text: str) -> list[BlockEvent]:
        began: list[BlockEvent] = []
        if self._open != "text":
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return []
            began = self._begin({"type": "text", "text": ""})
        return [*began, self._delta({"type": "text_delta", "text": text})] if text else began

    def _begin(self, block: ContentBlock) -> list[BlockEvent]:
        """Open a block, after the one that is open."""
        ended = self._end()
        self._blank = ""
        self._open = block["type"]
        self._index += 1
        return [*ended, {"type": "content_block_start", "index": self._index, "content_block": block}]

    def _end(self) -> list[BlockEvent]:
        """Close the open block, if there is one."""
        if self._open is None:
            return []
        signed = (
            [self._delta({"type": "signature_delta", "signature": ""})] if self._open == "thinking" else []
        )
        self._open = None
        return [*signed, {"type": "content_block_stop", "index": self._index}]

    def _delta(self, delta: BlockDelta) -> ContentBlockDelta:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}
