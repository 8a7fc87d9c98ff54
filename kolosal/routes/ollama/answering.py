"""From a decoded request to its response: the steps that `/api/generate` and `/api/chat` have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from kolosal.chat.events import ChatEvent, Ended, TextPiece
from kolosal.engines.engine import Engine
from kolosal.errors import Forbidden
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import NDJSON, EventStream
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.generation import Generation, start_generation
from kolosal.routes.common.services import registry_of
from kolosal.routes.common.turns import start_turns, whole_turn
from kolosal.routes.common.unary_calls import with_engine
from kolosal.routes.ollama.encode import Finish, Shape, Stats, answer_lines, durations
from kolosal.routes.ollama.errors import error_line
from kolosal.routes.ollama.lifetime import apply_keep_alive, unload
from kolosal.routes.ollama.names import checked_name, find_engine
from kolosal.schema import GenerateRequest, InfillPrompt, TextPrompt, Usage

_THREAD_ABOVE_LOGPROBS = 4096
"""Answers that report more tokens than this are written in a thread, so that they do not hold up everyone's tokens."""


class Started(Protocol):
    """A generation that runs."""

    def timings(self, index: int) -> tuple[float, float]:
        """Seconds until the first token, waiting included, and from there on."""

    def abort(self) -> None:
        """Stop it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine of a request, loaded, and what that took."""

    engine: Engine
    name: str
    """As the request had it."""
    keep_alive: float | None
    """Seconds it is to stay in memory, as `keep_alive_seconds` gives them; None where the request may not say."""
    began: float
    load_s: float

    def durations(self, usage: Usage, timings: tuple[float, float]) -> dict[str, int]:
        """The counts and durations of an answer that ends now."""
        return durations(usage, timings, self.load_s, time.monotonic() - self.began)


async def load(request: Request, model: str | None, keep_alive: float | None) -> Loaded:
    """The engine of that name, loaded.

    Raises:
        KolosalError: there is no such engine, or it cannot be loaded.
        ClientDisconnect: the client left.
    """
    began = time.monotonic()
    registry = registry_of(request)
    name = checked_name(registry, model)
    engine_id = find_engine(registry, name).engine_id
    engine = await with_engine(request, engine_id, _itself)
    if not is_admin(request.scope):  # what stays in memory concerns everybody
        keep_alive = None
    return Loaded(engine, name, keep_alive, began, time.monotonic() - began)


async def _itself(engine: Engine) -> Engine:
    return engine


async def only_load(request: Request, shape: Shape, keep_alive: float | None) -> Response:
    """The answer to a request without a prompt: it loads its model, or frees it where `keep_alive` is 0.

    Raises:
        KolosalError: there is no such engine, or it cannot be loaded.
        ClientDisconnect: the client left.
    """
    if keep_alive == 0:
        if not is_admin(request.scope):
            raise Forbidden("Freeing a model needs an API key with the scope 'admin'", code="missing_scope")
        await unload(find_engine(registry_of(request), shape.model), until_free=True)
        return JsonResponse(shape.loaded("unload"))
    loaded = await load(request, shape.model, keep_alive)
    await apply_keep_alive(loaded.engine, loaded.keep_alive)
    return JsonResponse(shape.loaded("load"))


async def answer(
    request: Request,
    loaded: Loaded,
    shape: Shape,
    wanted: GenerateRequest,
    *,
    stream: bool,
    more: Finish | None = None,
) -> Response:
    """Generate, and answer whole or line by line. `more` gives more keys for the last object, from the answer's text.

    Raises:
        KolosalError: before anything was sent.
        ClientDisconnect: the client left before anything was sent.
    """
    started, events = await _start(request, loaded, wanted)

    async def finish(text: str) -> Mapping[str, Any]:
        keys: Mapping[str, Any] = {} if more is None else await more(text)
        await apply_keep_alive(loaded.engine, loaded.keep_alive)
        return keys

    def stats(usage: Usage) -> Mapping[str, int]:
        return loaded.durations(usage, started.timings(0))

    if stream:
        return EventStream(
            answer_lines(shape, events, stats, finish),
            started.abort,
            error_line,
            ping=None,
            media_type=NDJSON,
        )
    try:
        return await unless_disconnected(request, _whole(shape, events, stats, finish))
    finally:
        started.abort()


async def _whole(
    shape: Shape,
    events: AsyncIterator[ChatEvent],
    stats: Stats,
    finish: Finish,
) -> JsonResponse[dict[str, Any]]:
    turn = whole_turn([event async for event in events])
    counts = stats(turn.usage)
    more = await finish(turn.text)
    if len(turn.logprobs) > _THREAD_ABOVE_LOGPROBS:
        return await asyncio.to_thread(lambda: JsonResponse(shape.whole(turn, more, counts)))
    return JsonResponse(shape.whole(turn, more, counts))


async def _start(
    request: Request, loaded: Loaded, wanted: GenerateRequest
) -> tuple[Started, AsyncIterator[ChatEvent]]:
    """A generation that has its first event, and its events. Raw text is not read for thoughts and calls."""
    engine_id = loaded.engine.engine_id
    if isinstance(wanted.prompt, TextPrompt | InfillPrompt):
        generation = await start_generation(request, engine_id, [wanted])
        return generation, _as_text(generation)
    turns = await start_turns(request, engine_id, [wanted])
    return turns, _of_first(turns.events())


async def _of_first(events: AsyncIterator[tuple[int, ChatEvent]]) -> AsyncIterator[ChatEvent]:
    async for _, event in events:
        yield event


async def _as_text(generation: Generation) -> AsyncIterator[ChatEvent]:
    async for _, delta in generation.deltas():
        if delta.text or delta.logprobs:
            yield TextPiece(delta.text, delta.logprobs)
        if delta.finish_reason is not None and delta.usage is not None:
            yield Ended(delta.finish_reason, delta.usage, delta.stop)
