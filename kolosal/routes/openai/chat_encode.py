"""What a chat completion looks like on the wire: whole answers and chunks.

Pure: from turns and their events to JSON values and frames.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

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
from kolosal.http.sse import DONE, data_frame
from kolosal.routes.openai.encode import answer_id, stream_id, timings_body, usage_body
from kolosal.schema import TokenLogprob, TokenLogprobs, ToolCall, Usage

Timings = Callable[[int], tuple[float, float]]
"""Seconds until the first token of a turn, and from there on."""


def chat_answer(
    model: str, fingerprint: str, turns: Sequence[ChatTurn], timings: Timings, *, logprobs: bool
) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    return {
        "id": answer_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [_choice(index, turn, logprobs=logprobs) for index, turn in enumerate(turns)],
        "usage": _usage([turn.usage for turn in turns], sum(turn.thinking_tokens for turn in turns)),
        "timings": timings_body(turns[0].usage, timings(0)),
    }


def _choice(index: int, turn: ChatTurn, *, logprobs: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if turn.calls and not turn.text else turn.text,
        "refusal": None,
    }
    if turn.thinking:
        message["reasoning_content"] = turn.thinking
    if turn.calls:
        message["tool_calls"] = [_call(call) for call in turn.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_body(turn.logprobs) if logprobs else None,
        "finish_reason": turn.finish_reason,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def logprobs_body(logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """`logprobs` of a choice: one entry for each token."""
    content = [
        {**_chance(entry.chosen), "top_logprobs": [_chance(chance) for chance in entry.top]}
        for entry in logprobs
    ]
    return {"content": content, "refusal": None}


def _chance(chance: TokenLogprob) -> dict[str, Any]:
    data = chance.written
    return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": chance.logprob}


async def chat_frames(
    model: str,
    fingerprint: str,
    events: AsyncIterator[tuple[int, ChatEvent]],
    timings: Timings,
    *,
    choices: int,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream: each choice's empty first chunk, its pieces, its empty last chunk; usage; `[DONE]`."""
    created = int(time.time())
    envelope = {
        "id": stream_id("chatcmpl", created),
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
    }
    no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def frame(
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        logprobs: Sequence[TokenLogprobs] = (),
    ) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
        if logprobs:
            choice["logprobs"] = logprobs_body(logprobs)
        return data_frame({**envelope, "choices": [choice], **no_usage})

    usages: dict[int, Usage] = {}
    thinking_tokens = 0
    for index in range(choices):
        yield frame(index, {"role": "assistant", "content": ""})
    async for index, event in events:
        match event:
            case TextPiece(text=text, logprobs=logprobs):
                yield frame(index, {"content": text}, logprobs=logprobs)
            case ThinkingPiece(text=text):
                yield frame(index, {"reasoning_content": text})
            case CallBegin() | CallPiece():
                yield frame(index, {"tool_calls": [_call_delta(event)]})
            case CallEnd():
                pass  # the next piece says so
            case Ended():
                usages[index] = event.usage
                thinking_tokens += event.thinking_tokens
                yield frame(index, {"content": ""}, event.finish_reason)
    first = timings_body(usages[0], timings(0))
    if include_usage:
        yield data_frame(
            {
                **envelope,
                "choices": [],
                "usage": _usage([*usages.values()], thinking_tokens),
                "timings": first,
            }
        )
    yield DONE


def _usage(usages: Sequence[Usage], thinking_tokens: int) -> dict[str, Any]:
    """The choices' token counts: of their prompt once, which it was read, and of all answers."""
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    body = usage_body([replace(usages[0], completion_tokens=completion_tokens)])
    return (
        body | {"completion_tokens_details": {"reasoning_tokens": thinking_tokens}}
        if thinking_tokens
        else body
    )


def _call_delta(event: CallBegin | CallPiece) -> dict[str, Any]:
    if isinstance(event, CallPiece):
        return {"index": event.index, "function": {"arguments": event.arguments}}
    function = {"name": event.name, "arguments": ""}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}
