"""Turns as Anthropic messages and events, from hand-made ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from kolosal.chat.events import (
    CallBegin,
    CallEnd,
    CallPiece,
    ChatEvent,
    ChatTurn,
    Ended,
    TextPiece,
    ThinkingPiece,
)
from kolosal.routes.anthropic.encode import MessageEncoder
from kolosal.routes.anthropic.stream import BlockEvent, BlockEvents, message_frames
from kolosal.schema import FinishReason, ToolCall, Usage
from tests.routes.anthropic.messages import golden

ENCODER = MessageEncoder("msg_ID", "fake", max_tokens=64)

TOOL_TURN: list[ChatEvent] = [
    ThinkingPiece("Where"),
    ThinkingPiece(" is it?"),
    TextPiece("\n"),
    TextPiece("\nI look."),
    TextPiece(""),
    CallBegin(0, "call_1", "weather"),
    CallPiece(0, '{"city"'),
    CallPiece(0, ': "Oslo"}'),
    CallEnd(0),
    TextPiece("\n"),
    CallBegin(1, "abcdefghi", "now"),
    CallPiece(1, "{}"),
    CallEnd(1),
    TextPiece("\n"),
    Ended(FinishReason.TOOL_CALLS, Usage(20, 9, 16)),
]


async def _frames(encoder: MessageEncoder, events: list[ChatEvent]) -> str:
    async def pairs() -> AsyncIterator[tuple[int, ChatEvent]]:
        for event in events:
            yield 0, event

    return b"".join([frame async for frame in message_frames(encoder, pairs(), Usage(20, 1, 16))]).decode()


async def test_a_turn_of_every_kind_of_block_streams_as_the_golden_file_says() -> None:
    assert await _frames(ENCODER, TOOL_TURN) == golden("thinking_and_tools")


async def test_text_streams_as_the_golden_file_says() -> None:
    end = Ended(FinishReason.STOP, Usage(20, 2, 16), stop="END")
    assert await _frames(ENCODER, [TextPiece("Hel"), TextPiece("lo é"), end]) == golden("text")


async def test_a_turn_of_nothing_has_no_blocks() -> None:
    frames = await _frames(ENCODER, [TextPiece(" \n"), Ended(FinishReason.STOP, Usage(7, 1))])
    names = [line for line in frames.splitlines() if line.startswith("event: ")]
    assert names == ["event: message_start", "event: message_delta", "event: message_stop"]


async def test_thoughts_that_are_not_shown_leave_an_empty_block() -> None:
    encoder = MessageEncoder("msg_ID", "fake", 64, shows_thinking=False)
    frames = await _frames(encoder, TOOL_TURN)
    assert "Where" not in frames
    assert '"content_block":{"type":"thinking","thinking":"","signature":""}' in frames
    turn = ChatTurn("a", "secret", (), FinishReason.STOP, Usage(1, 1))
    assert encoder.whole(turn)["content"][0] == {"type": "thinking", "thinking": "", "signature": ""}


def test_a_whole_turn_has_its_blocks_in_order() -> None:
    calls = (ToolCall("call_1", "weather", '{"city": "Oslo"}'), ToolCall("abcdefghi", "now", '{"cut'))
    turn = ChatTurn("I look.", "Where?", calls, FinishReason.TOOL_CALLS, Usage(20, 9, 16))
    assert ENCODER.whole(turn) == {
        "id": "msg_ID",
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "content": [
            {"type": "thinking", "thinking": "Where?", "signature": ""},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "abcdefghi", "name": "now", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 16,
            "output_tokens": 9,
        },
    }


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (Ended(FinishReason.STOP, Usage(1, 3)), "end_turn"),
        (Ended(FinishReason.STOP, Usage(1, 3), stop="END"), "stop_sequence"),
        (Ended(FinishReason.TOOL_CALLS, Usage(1, 3)), "tool_use"),
        (Ended(FinishReason.LENGTH, Usage(1, 64)), "max_tokens"),
        (Ended(FinishReason.LENGTH, Usage(1, 3)), "model_context_window_exceeded"),
    ],
)
def test_every_end_has_its_stop_reason(end: Ended, reason: str) -> None:
    assert ENCODER.stop_fields(end) == {"stop_reason": reason, "stop_sequence": end.stop}


@pytest.mark.parametrize(
    "events",
    [TOOL_TURN, [TextPiece("a"), ThinkingPiece("b"), TextPiece("c"), Ended(FinishReason.STOP, Usage(1, 1))]],
)
def test_blocks_never_overlap_and_count_up(events: list[ChatEvent]) -> None:
    blocks = BlockEvents(shows_thinking=True)
    made: list[BlockEvent] = [event for given in events for event in blocks.push(given)]
    open_index = None
    begun = 0
    for event in made:
        if event["type"] == "content_block_start":
            assert (open_index, event["index"]) == (None, begun)
            open_index, begun = begun, begun + 1
        else:
            assert event["index"] == open_index
            if event["type"] == "content_block_stop":
                open_index = None
    assert open_index is None


@pytest.mark.parametrize("name", ["text", "thinking_and_tools"])
def test_golden_files_are_events_as_the_official_client_types_them(name: str) -> None:
    official: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
    frames = [frame.split("\ndata: ") for frame in golden(name).removesuffix("\n\n").split("\n\n")]
    events = [official.validate_json(data) for event, data in frames if event != "event: ping"]
    assert [event.type for event in events][:2] == ["message_start", "content_block_start"]
    message = ENCODER.whole(ChatTurn("a", "b", (), FinishReason.STOP, Usage(1, 1)))
    assert Message.model_validate(message).content[0].type == "thinking"
