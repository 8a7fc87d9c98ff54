"""stream_answer: a stream whose client sees life while its request waits for a load, the queue or a long prompt.

What fails soon after the request came is an answer with a status of its own. After `server.stream_headers_after_s` the headers go
out all the same, then pings, and what fails from there on is an event of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request

from kolosal.engines.state import EngineState
from kolosal.errors import KolosalError
from kolosal.http.disconnect import end_tasks, unless_disconnected
from kolosal.http.sse import EVENTS, PING, EventStream
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.services import caller_of, registry_of, services_of
from kolosal.schema import GenerateRequest

T = TypeVar("T")


async def stream_answer(
    request: Request,
    starting: Coroutine[Any, Any, T],
    frames: Callable[[T], AsyncGenerator[bytes, None]],
    close: Callable[[], None],
    encode_error: Callable[[KolosalError], bytes],
    *,
    model: str | None = None,
    ping: bytes | None = PING,
    media_type: str = EVENTS,
) -> EventStream:
    """The stream of the frames of what `starting` gives; all else as for `EventStream`.

    `starting` is given up where the client leaves, and `close` undoes what it did. Where pings are comments, they tell
    how far `model` is loaded.

    Raises:
        KolosalError: it failed before the headers went out.
        ClientDisconnect: the client left.
    """
    started = asyncio.create_task(starting)
    patience_s = services_of(request).settings.server.stream_headers_after_s
    try:
        await unless_disconnected(request, _within(patience_s, started))
        if started.done():
            begun = frames(started.result())
            return EventStream(begun, close, encode_error, ping=ping, media_type=media_type)
    except BaseException:
        close()
        await end_tasks(started)
        raise

    def sign_of_life() -> bytes:
        told = None if started.done() or ping != PING else _loading(request, model)
        return ping or b"" if told is None else told

    async def later() -> AsyncGenerator[bytes, None]:
        if ping:
            yield sign_of_life()
        async with aclosing(frames(await started)) as begun:
            async for frame in begun:
                yield frame

    def end() -> None:
        started.cancel()
        close()

    pings = None if ping is None else sign_of_life
    return EventStream(later(), end, encode_error, ping=pings, media_type=media_type)


async def stream_generation(
    request: Request,
    model: str | None,
    prompts: Sequence[GenerateRequest],
    frames: Callable[[Generation], AsyncGenerator[bytes, None]],
    encode_error: Callable[[KolosalError], bytes],
    *,
    ping: bytes | None = PING,
) -> EventStream:
    """The stream of the frames of a generation that `start_generation` would start. Raises as `stream_answer`."""
    generation = Generation(caller_of(request))

    def begun(_: None) -> AsyncGenerator[bytes, None]:
        return frames(generation)

    starting = generation.start(model, prompts)
    return await stream_answer(
        request, starting, begun, generation.abort, encode_error, model=model, ping=ping
    )


async def _within(patience_s: float, started: asyncio.Task[T]) -> None:
    await asyncio.wait((started,), timeout=patience_s)


def _loading(request: Request, model: str | None) -> bytes | None:
    """A comment that says how far an engine is loaded; None where it is not loading."""
    name = model or registry_of(request).default_engine
    engine = None if name is None else registry_of(request).find(name)
    if engine is None or engine.state is not EngineState.LOADING:
        return None
    return f": loading {engine.load_progress:.0%}\n\n".encode()
