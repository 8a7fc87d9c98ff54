"""What a generation looks like in the Ollama dialect: whole answers, and the lines of a stream.

From the events of a turn to JSON objects. `/api/generate` and `/api/chat` differ only in where they put the text.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

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
from kolosal.schema import FinishReason, TokenLogprob, TokenLogprobs, ToolCall, Usage

_NS = 1_000_000_000

Stats = Callable[[Usage], Mapping[str, int]]
"""The counts and durations of a generation that has ended."""

Finish = Callable[[str], Awaitable[Mapping[str, Any]]]
"""What is done when a turn of this text has ended; gives more keys for the last object."""


def rfc3339(moment: datetime) -> str:
    """A time as Ollama writes it, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def durations(usage: Usage, timings: tuple[float, float], load_s: float, total_s: float) -> dict[str, int]:
    """Counts, and durations in nanoseconds. Reading the prompt includes waiting for a place in the batch."""
    prompt_s, answer_s = timings
    return {
        "total_duration": int(total_s * _NS),
        "load_duration": int(load_s * _NS),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": int(prompt_s * _NS),
        "eval_count": usage.completion_tokens,
        "eval_duration": int(answer_s * _NS),
    }


@dataclass(frozen=True, slots=True)
class Shape:
    """What all objects of one answer have in common."""

    model: str
    """As the request had it."""
    kind: Literal["generate", "chat"]
    now: Callable[[], datetime] = utc_now
    tools: bool = False
    """Whether tools may be called: then blanks around calls are left out of the text."""

    def loaded(self, reason: Literal["load", "unload"]) -> dict[str, Any]:
        """The answer to a request that only loads a model, or frees it."""
        return {**self._head(), **self._part(), "done": True, "done_reason": reason}

    def piece(
        self,
        text: str = "",
        thinking: str = "",
        calls: Sequence[Mapping[str, Any]] = (),
        logprobs: Sequence[TokenLogprobs] = (),
    ) -> dict[str, Any]:
        """One object of a stream, but the last."""
        chances = {"logprobs": logprobs_body(logprobs)} if logprobs else {}
        return {**self._head(), **self._part(text, thinking, calls), "done": False, **chances}

    def last(self, reason: FinishReason, more: Mapping[str, Any], stats: Mapping[str, int]) -> dict[str, Any]:
        """The last object of a stream."""
        return {**self._head(), **self._part(), **_done(reason), **more, **stats}

    def whole(self, turn: ChatTurn, more: Mapping[str, Any], stats: Mapping[str, int]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        calls = [
            body for index, call in enumerate(turn.calls) if (body := call_body(index, call)) is not None
        ]
        text = turn.text.strip() if calls else turn.text
        chances = {"logprobs": logprobs_body(turn.logprobs)} if turn.logprobs else {}
        part = self._part(text, turn.thinking, calls)
        return {**self._head(), **part, **_done(turn.finish_reason), **chances, **more, **stats}

    def _head(self) -> dict[str, Any]:
        return {"model": self.model, "created_at": rfc3339(self.now())}

    def _part(
        self, text: str = "", thinking: str = "", calls: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        more: dict[str, Any] = {"thinking": thinking} if thinking else {}
        if self.kind == "generate":
            return {"response": text, **more}
        if calls:
            more["tool_calls"] = [*calls]
        return {"message": {"role": "assistant", "content": text, **more}}


def _done(reason: FinishReason) -> dict[str, Any]:
    return {"done": True, "done_reason": "length" if reason is FinishReason.LENGTH else "stop"}


def call_body(index: int, call: ToolCall) -> dict[str, Any] | None:
    """A call; None where the end of the answer cut its arguments off, as they could be no object."""
    try:
        arguments = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(arguments, dict):
        return None
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}


def logprobs_body(logprobs: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
    """`logprobs`: one entry for each token."""
    return [
        {**_chance(entry.chosen), "top_logprobs": [_chance(chance) for chance in entry.top]}
        for entry in logprobs
    ]


def _chance(chance: TokenLogprob) -> dict[str, Any]:
    data = chance.data
    return {"token": data.decode(errors="replace"), "logprob": chance.logprob, "bytes": list(data)}


class Lines:
    """Makes the objects of one turn's stream from its events. A call is one object, as its arguments are no text."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._blank = ""
        """Blanks that are shown only if text follows them."""
        self._calls: dict[int, tuple[CallBegin, list[str]]] = {}
        self.text = ""
        """The text so far."""

    def push(self, event: ChatEvent) -> list[dict[str, Any]]:
        """What an event adds to the stream. The last object is made by whoever knows what else is in it."""
        match event:
            case TextPiece(text=text, logprobs=logprobs):
                return self._text(text, logprobs)
            case ThinkingPiece(text=text):
                return [self._shape.piece(thinking=text)] if text else []
            case CallBegin(index=index):
                self._blank = ""
                self._calls[index] = event, []
            case CallPiece(index=index, arguments=arguments):
                self._calls[index][1].append(arguments)
            case CallEnd(index=index):
                begin, pieces = self._calls.pop(index)
                body = call_body(index, ToolCall(begin.id, begin.name, "".join(pieces)))
                return [] if body is None else [self._shape.piece(calls=[body])]
            case Ended():
                pass
        return []

    def _text(self, text: str, logprobs: Sequence[TokenLogprobs]) -> list[dict[str, Any]]:
        self.text += text
        text = self._blank + text
        if self._shape.tools and not text.strip() and not logprobs:
            self._blank = text
            return []
        self._blank = ""
        return [self._shape.piece(text, logprobs=logprobs)] if text or logprobs else []


async def answer_lines(
    shape: Shape, events: AsyncIterator[ChatEvent], stats: Stats, finish: Finish
) -> AsyncGenerator[bytes, None]:
    """The lines of a stream: its pieces, then one with `done`, the reason and the counts."""
    lines = Lines(shape)
    async for event in events:
        for piece in lines.push(event):
            yield _line(piece)
        if isinstance(event, Ended):
            counts = stats(event.usage)
            yield _line(shape.last(event.finish_reason, await finish(lines.text), counts))


def _line(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value) + b"\n"
