"""Streams of `/api/generate` and `/api/chat`: the events of a turn as lines of JSON. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import orjson

from kolosal.chat.events import CallBegin, CallEnd, CallPiece, ChatEvent, Ended, TextPiece, ThinkingPiece
from kolosal.routes.ollama.encode import (
    AnswerEncoder,
    ContextField,
    Metrics,
    ObjectParts,
    OptionalFields,
    call_body,
    done_reason,
    logprobs_body,
)
from kolosal.schema import TokenLogprobs, ToolCall, Usage

T = TypeVar("T")

MeasureAnswer: TypeAlias = Callable[[Usage], Metrics]
"""The counts and durations of a generation that has ended."""

FinishAnswer: TypeAlias = Callable[[str], Awaitable[ContextField]]
"""What is done when a turn of this text has ended; gives `context` for the last object, where it has one."""


class PieceEncoder(Generic[T]):
    """Makes the objects of one turn's stream from its events. A call is one object, as its arguments are no text."""

    def __init__(self, encoder: AnswerEncoder[T]) -> None:
        self._encoder = encoder
        self._blank = ""
        """Blanks that are shown only if text follows them."""
        self._calls: dict[int, tuple[CallBegin, list[str]]] = {}
        self.text = ""
        """The text so far."""

    def push(self, event: ChatEvent) -> list[T]:
        """What an event adds to the stream. The last object is made by whoever knows what else is in it."""
        match event:
            case TextPiece(text=text, logprobs=logprobs):
                return self._text(text, logprobs)
            case ThinkingPiece(text=text):
                return [self._encoder.make(ObjectParts(thinking=text, done=False))] if text else []
            case CallBegin(index=index):
                self._blank = ""
                self._calls[index] = event, []
            case CallPiece(index=index, arguments=arguments):
                self._calls[index][1].append(arguments)
            case CallEnd(index=index):
                begin, pieces = self._calls.pop(index)
                body = call_body(index, ToolCall(begin.id, begin.name, "".join(pieces)))
                if body is not None:
                    return [self._encoder.make(ObjectParts(calls=[body], done=False))]
            case Ended():
                pass
        return []

    def _text(self, text: str, logprobs: Sequence[TokenLogprobs]) -> list[T]:
        self.text += text
        text = self._blank + text
        if self._encoder.calls_tools and not text.strip() and not logprobs:
            self._blank = text
            return []
        self._blank = ""
        if not (text or logprobs):
            return []
        optional: OptionalFields = {"logprobs": logprobs_body(logprobs)} if logprobs else {}
        return [self._encoder.make(ObjectParts(text=text, done=False, optional=optional))]


async def answer_lines(
    encoder: AnswerEncoder[T],
    events: AsyncIterator[tuple[int, ChatEvent]],
    measure: MeasureAnswer,
    finish: FinishAnswer,
) -> AsyncGenerator[bytes, None]:
    """The lines of a stream: its pieces, then one with `done`, the reason and the counts."""
    pieces = PieceEncoder(encoder)
    async for _, event in events:
        for piece in pieces.push(event):
            yield orjson.dumps(piece) + b"\n"
        if isinstance(event, Ended):
            counts = measure(event.usage)
            context = await finish(pieces.text)
            optional: OptionalFields = {"done_reason": done_reason(event.finish_reason)}
            last = encoder.make(ObjectParts(optional=optional, context=context, metrics=counts))
            yield orjson.dumps(last) + b"\n"
