"""RequestStream: one generation as its caller sees it.

Owns the slot between the worker's steps and one consumer. The slot merges, as vLLM's `RequestOutputCollector` does: a consumer that
reads slowly gets longer pieces, never a queue that grows, and the engine never waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from kolosal.errors import KolosalError
from kolosal.observe.observer import RequestWatch
from kolosal.schema import FinishReason, TokenDelta, TokenLogprobs, Usage


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole generation: the sum of its deltas."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    stop: str | None = None
    """The stop string that ended it."""


class RequestStream:
    """An async iterator of `TokenDelta`, ending after the one that has a finish reason.

    Used on the event loop only, by one consumer. Iterating raises the generation's typed error where it failed.
    Whoever holds a stream calls `abort()` when it stops reading early; after the end that does nothing.
    """

    def __init__(self, on_abort: Callable[[], None], watch: RequestWatch) -> None:
        self._on_abort = on_abort
        self._watch = watch
        self._pending: TokenDelta | None = None
        self._error: KolosalError | None = None
        self._finished = False
        self._changed = asyncio.Event()
        self._started_at = time.monotonic()
        self._usage: Usage | None = None
        self._n_tokens = 0
        self._first_at: float | None = None
        self._ended_at: float | None = None

    # --- the engine's side ---

    def put(self, delta: TokenDelta) -> None:
        """Add what a step made."""
        if self._finished:
            return
        self._pending = delta if self._pending is None else self._pending.merge(delta)
        self._finished = delta.finish_reason is not None
        self._usage = delta.usage or self._usage
        self._n_tokens += len(delta.tokens)
        self._watch.delta(delta)
        now = time.monotonic()  # once: what came in one step took no time between its tokens
        if self._first_at is None and (delta.tokens or delta.text or self._finished):
            self._first_at = now
        if self._finished:
            self._ended_at = now
        self._changed.set()

    def fail(self, error: KolosalError) -> None:
        """End with an error. What was put before is still delivered first."""
        if not self._finished:
            self._error = error
            self._finished = True
            self._watch.failed(error)
            self._changed.set()

    # --- the consumer's side ---

    @property
    def usage(self) -> Usage | None:
        """The latest count of tokens: that of the prompt is right from the first token on. None before."""
        return self._usage

    @property
    def counts(self) -> Usage:
        """All tokens so far; those of the prompt are 0 before the first token of the answer."""
        known = self._usage or Usage(0, 0)
        return replace(known, completion_tokens=max(known.completion_tokens, self._n_tokens))

    @property
    def timings(self) -> tuple[float, float]:
        """Seconds until the first token, waiting included, and from there to the end, or until now."""
        now = time.monotonic()
        first = self._first_at or now
        return first - self._started_at, (self._ended_at or now) - first

    def abort(self) -> None:
        """Stop generating. Synchronous and idempotent, so it works in the `finally` of a cancelled task."""
        if not self._finished:
            self._finished = True
            self._pending = None
            self._watch.cancelled()
            self._changed.set()
            self._on_abort()

    def stop(self) -> None:
        """End as if the model had ended its turn: what follows is not wanted. Synchronous and idempotent."""
        if not self._finished and self._usage is not None:
            usage = replace(self._usage, completion_tokens=self._n_tokens)
            self.put(TokenDelta("", finish_reason=FinishReason.STOP, usage=usage))
            self._on_abort()

    async def ready(self) -> None:
        """Wait for the first event without taking it.

        Raises:
            KolosalError: the generation failed before it made anything.
        """
        await self._wait()
        if self._pending is None and self._error is not None:
            raise self._error

    async def collect(self) -> Completion:
        """The whole generation.

        Raises:
            KolosalError: the generation failed.
        """
        pieces: list[str] = []
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        async for delta in self:
            pieces.append(delta.text)
            tokens += delta.tokens
            logprobs += delta.logprobs
            if delta.finish_reason is not None and delta.usage is not None:
                return Completion(
                    "".join(pieces),
                    delta.finish_reason,
                    delta.usage,
                    tuple(tokens),
                    tuple(logprobs),
                    delta.stop,
                )
        raise asyncio.CancelledError("the stream was aborted while it was collected")

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> TokenDelta:
        await self._wait()
        if self._pending is not None:
            delta, self._pending = self._pending, None
            return delta
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def _wait(self) -> None:
        while self._pending is None and not self._finished:
            self._changed.clear()
            await self._changed.wait()
