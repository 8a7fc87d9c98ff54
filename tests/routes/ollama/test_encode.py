"""Turns as Ollama's lines and objects, from hand-made ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from ollama import ChatResponse, GenerateResponse

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
from kolosal.routes.ollama.encode import (
    AnswerEncoder,
    ContextField,
    Metrics,
    call_body,
    chat_object,
    generate_object,
    metrics,
    rfc3339,
)
from kolosal.routes.ollama.stream import answer_lines
from kolosal.schema import FinishReason, TokenLogprob, TokenLogprobs, ToolCall, Usage
from tests.routes.ollama.asking import golden

NOW = datetime(2026, 5, 4, 3, 2, 1, 5000, UTC)
GENERATE = AnswerEncoder("fake", generate_object, now=lambda: NOW)
CHAT = AnswerEncoder("fake", chat_object, calls_tools=True, now=lambda: NOW)

CHANCES = (
    TokenLogprobs(TokenLogprob(1, "\xc3", -0.5), (TokenLogprob(1, "\xc3", -0.5), TokenLogprob(2, "a", -1.0))),
)

TOOL_TURN: list[ChatEvent] = [
    ThinkingPiece("Where"),
    ThinkingPiece(" is it?"),
    ThinkingPiece(""),
    TextPiece("\n"),
    TextPiece("\nI look."),
    TextPiece("\n"),
    CallBegin(0, "call_1", "weather"),
    CallPiece(0, '{"city"'),
    CallPiece(0, ': "Oslo"}'),
    CallEnd(0),
    TextPiece("\n"),
    CallBegin(1, "call_2", "now"),
    CallPiece(1, "{}"),
    CallEnd(1),
    CallBegin(2, "call_3", "weather"),
    CallPiece(2, '{"ci'),
    TextPiece("\n"),
    Ended(FinishReason.TOOL_CALLS, Usage(20, 9, 16)),
]


def stats(usage: Usage) -> Metrics:
    return metrics(usage, (0.25, 0.5), 0.125, 1.0)


async def _lines(
    encoder: AnswerEncoder[Any], events: list[ChatEvent], context: ContextField | None = None
) -> str:
    async def each() -> AsyncIterator[tuple[int, ChatEvent]]:
        for event in events:
            yield 0, event

    async def finish(text: str) -> ContextField:
        return context or {}

    return b"".join([line async for line in answer_lines(encoder, each(), stats, finish)]).decode()


async def test_a_turn_with_thoughts_and_calls_streams_as_the_golden_file_says() -> None:
    assert await _lines(CHAT, TOOL_TURN) == golden("chat")


async def test_an_answer_streams_as_the_golden_file_says() -> None:
    end = Ended(FinishReason.LENGTH, Usage(20, 2, 16))
    events: list[ChatEvent] = [
        ThinkingPiece("Hm"),
        TextPiece("Hel"),
        TextPiece("", CHANCES),
        TextPiece(""),
        TextPiece("lo é\n"),
        end,
    ]
    assert await _lines(GENERATE, events, {"context": [1, 2]}) == golden("generate")


def test_golden_files_are_what_the_official_client_reads() -> None:
    chat = [ChatResponse(**orjson.loads(line)) for line in golden("chat").splitlines()]
    assert [call.function.name for part in chat for call in part.message.tool_calls or ()] == [
        "weather",
        "now",
    ]
    assert [part.done for part in chat] == [False] * 5 + [True]
    generated = [GenerateResponse(**orjson.loads(line)) for line in golden("generate").splitlines()]
    assert generated[-1].total_duration == 1_000_000_000
    assert generated[-1].context == [1, 2]


def test_a_whole_turn_has_the_same() -> None:
    calls = (ToolCall("call_1", "weather", '{"city": "Oslo"}'), ToolCall("call_3", "weather", '{"ci'))
    turn = ChatTurn(
        "\n\nI look.\n", "Where?", calls, FinishReason.TOOL_CALLS, Usage(20, 9, 16), logprobs=CHANCES
    )
    assert CHAT.whole(turn, {}, stats(turn.usage)) == {
        "model": "fake",
        "created_at": "2026-05-04T03:02:01.005000Z",
        "message": {
            "role": "assistant",
            "content": "I look.",
            "thinking": "Where?",
            "tool_calls": [
                {"id": "call_1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Oslo"}}}
            ],
        },
        "done": True,
        "done_reason": "stop",
        "logprobs": [
            {
                "token": "\ufffd", "logprob": -0.5, "bytes": [0xC3],
                "top_logprobs": [
                    {"token": "\ufffd", "logprob": -0.5, "bytes": [0xC3]}, {"token": "a", "logprob": -1.0, "bytes": [97]},
                ],
            }
        ],
        "total_duration": 1_000_000_000,
        "load_duration": 125_000_000,
        "prompt_eval_count": 20,
        "prompt_eval_duration": 250_000_000,
        "eval_count": 9,
        "eval_duration": 500_000_000,
    }  # fmt: skip


@pytest.mark.parametrize("arguments", ['{"a', "[]", "5", ""])
def test_arguments_that_are_no_object_make_no_call(arguments: str) -> None:
    assert call_body(0, ToolCall("1", "f", arguments)) is None


def test_times_are_utc() -> None:
    assert rfc3339(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31T23:00:00Z"
