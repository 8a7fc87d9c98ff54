"""Generations in llama-server's own shape, read together: counted, cut off by time, whole or streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from kolosal.http.sse import data_frame
from kolosal.routes.common.generation import Generation
from kolosal.routes.llama_server.native_body import NativeBody
from kolosal.routes.llama_server.native_encode import (
    NativeAnswer,
    NativePiece,
    generation_settings,
    native_answer,
    native_piece,
    picked,
)
from kolosal.routes.openai.encode import timings
from kolosal.schema import FinishReason, GenerateRequest, TokenDelta, Usage


@dataclass(slots=True)
class _Progress:
    """How far one answer has come."""

    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    has_new_line: bool = False
    first_at: float | None = None

    def add(self, delta: TokenDelta) -> None:
        """Count a delta. The first one with tokens says how long the prompt is."""
        known = delta.usage or self.usage
        n_tokens = self.usage.completion_tokens + len(delta.tokens)
        if delta.finish_reason is not None and delta.usage is not None:
            n_tokens = delta.usage.completion_tokens
        self.usage = Usage(known.prompt_tokens, n_tokens, known.cached_tokens)
        self.has_new_line = self.has_new_line or "\n" in delta.text
        if self.first_at is None and delta.tokens:
            self.first_at = time.monotonic()

    def is_late(self, limit_s: float | None) -> bool:
        """Whether the time from the first token on is over, in an answer that has a line."""
        if limit_s is None or self.first_at is None:
            return False
        return self.has_new_line and time.monotonic() - self.first_at > limit_s


class NativeRun:
    """The answers to one request. `prompts` are the prompts as text, in the order of `requests`."""

    def __init__(
        self,
        body: NativeBody,
        generation: Generation,
        requests: Sequence[GenerateRequest],
        prompts: Sequence[str],
    ) -> None:
        self._body = body
        self._generation = generation
        self._requests = requests
        self._prompts = prompts
        self._model = body.model or generation.engine.engine_id
        self._progress = [_Progress() for _ in requests]

    async def whole(self) -> list[NativeAnswer]:
        """All answers, in the order of the prompts."""
        sums = [TokenDelta("")] * len(self._requests)
        async for index, delta in self._deltas():
            sums[index] = sums[index].merge(delta)
        return [
            self._end(index, delta, tokens=bool(self._body.return_tokens)) for index, delta in enumerate(sums)
        ]

    async def frames(self, *, tokens: bool) -> AsyncGenerator[bytes, None]:
        """The events of a stream. llama-server's has no `[DONE]`: `stop` says which is the last of its index."""
        async for index, delta in self._deltas():
            if delta.finish_reason is not None:
                yield data_frame(self._end(index, delta, tokens=tokens))
            elif delta.text or (tokens and delta.tokens):
                piece = self._piece(index, delta, tokens=tokens)
                if self._body.timings_per_token:
                    usage = self._progress[index].usage
                    piece["timings"] = timings(usage, self._generation.timings(index))
                yield data_frame(piece)

    async def _deltas(self) -> AsyncIterator[tuple[int, TokenDelta]]:
        """What comes, until the time is over; an answer that was cut off by it has reached its limit."""
        async for index, delta in self._generation.deltas():
            progress = self._progress[index]
            progress.add(delta)
            if delta.finish_reason is None and progress.is_late(self._body.time_limit_s):
                yield index, delta.merge(TokenDelta("", (), FinishReason.LENGTH, progress.usage))
                return
            yield index, delta

    def _piece(self, index: int, delta: TokenDelta, *, tokens: bool) -> NativePiece:
        usage, probabilities = self._progress[index].usage, bool(self._body.n_probs)
        return native_piece(index, delta, usage, probabilities=probabilities, tokens=tokens)

    def _end(self, index: int, delta: TokenDelta, *, tokens: bool) -> NativeAnswer:
        progress, info = self._progress[index], self._generation.engine.info
        answer: NativeAnswer = native_answer(
            self._piece(index, delta, tokens=tokens),
            delta,
            progress.usage,
            self._generation.timings(index),
            model=self._model,
            prompt=self._prompts[index],
            settings=generation_settings(
                self._requests[index].sampling,
                0 if info is None else info.n_ctx,
                stream=bool(self._body.stream),
            ),
            has_new_line=progress.has_new_line,
        )
        fields = self._body.response_fields
        return cast(NativeAnswer, picked(answer, fields)) if fields else answer
