"""One request's generations, whatever the dialect: started together, read together, given up together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from kolosal.admission import Place
from kolosal.chat.events import ChatEvent, ChatTurn, Ended, TextPiece, whole_turn
from kolosal.chat.formats import ToolFormat
from kolosal.chat.parser import ChatParser
from kolosal.engines.engine import Engine
from kolosal.engines.state import EngineState
from kolosal.engines.stream import Completion, RequestStream
from kolosal.errors import QueueTimeout
from kolosal.http.disconnect import unless_disconnected
from kolosal.models.defaults import with_defaults, with_turns
from kolosal.models.models_file import NamedModel
from kolosal.routes.common.services import Caller, caller_of
from kolosal.schema import (
    ChatPrompt,
    GenerateRequest,
    InfillPrompt,
    TextPrompt,
    TokenDelta,
    ToolUse,
    Usage,
)

T = TypeVar("T")


class Generation:
    """The streams of one request, one for each of its prompts, and the place that it has among the daemon's requests.

    Whoever has one that has started calls `abort()` when done with it, in a `finally`: it is synchronous and idempotent, and
    does nothing to streams that have ended.
    """

    def __init__(self, caller: Caller, request: Request | None = None, place: Place | None = None) -> None:
        """In a place that is taken now, unless one is given.

        `request`: what `begin` and `finish` wait for is given up when the client of this leaves; None: the caller sees to that.

        Raises:
            Overloaded: there is no place.
        """
        self._caller = caller
        self._request = request
        self._place = caller.place() if place is None else place
        self._engine: Engine | None = None
        self._model: NamedModel | None = None
        self._prompts: Sequence[GenerateRequest] = ()
        self._streams: tuple[RequestStream, ...] = ()

    @property
    def engine(self) -> Engine:
        """The engine that generates; there once it is loaded."""
        assert self._engine is not None  # noqa: S101 - nobody gets a Generation that has not started
        return self._engine

    # --- starting ---

    async def start(self, model: str | None, prompts: Sequence[GenerateRequest]) -> None:
        """Load the engine if need be, submit the prompts and wait until each has its first event, but not for ever.

        The first event is awaited so that an error can still be a status line. A load that takes too long for this request
        goes on: others may wait for it, and it has a limit of its own.

        Raises:
            KolosalError: there is no such engine, it cannot be loaded or is full, a prompt was refused, or the first token
                took too long; nothing runs on.
            ClientDisconnect: the client left; nothing runs on.
        """
        await self.begin(self._start(model, prompts))

    async def begin(self, starting: Coroutine[Any, Any, T]) -> T:
        """The result of what starts this, with `load` and `submit`. Raises as `start`."""
        try:
            return await within(
                self._caller.services.settings.server.queue_timeout_s, self._watched(starting)
            )
        except BaseException:
            self.abort()
            raise

    async def _start(self, model: str | None, prompts: Sequence[GenerateRequest]) -> None:
        self._engine = await self._caller.services.registry.acquire(model)
        self._model = self._caller.model(model, self._engine)
        await self.submit(prompts)  # runs on to `Engine.generate` without giving others a turn

    async def load(self, model: str | None, prepare: Callable[[Engine], Awaitable[T]]) -> T:
        """What `prepare` makes with the loaded engine that is to generate. `submit` comes next, with no await between.

        An engine that was replaced or unloaded while `prepare` called it is left for the one that has its name then.

        Raises:
            KolosalError: there is no such engine, it cannot be loaded, or `prepare` refused.
        """
        while True:
            self._engine = await self._caller.services.registry.acquire(model)
            self._model = self._caller.model(model, self._engine)
            prepared = await prepare(self._engine)
            if self._engine.state is EngineState.READY:
                return prepared
            await asyncio.sleep(0)  # so that this ends when the client leaves, or its time is over

    async def submit(self, prompts: Sequence[GenerateRequest]) -> None:
        """Give the loaded engine the prompts, in place of any it had before, and wait until each has its first event.

        Raises:
            KolosalError: the engine is full, or a prompt was refused.
        """
        self._stop()
        self._prompts, self._streams = [self.with_defaults(prompt) for prompt in prompts], ()
        for prompt in self._prompts:
            self._streams += (self.engine.generate(self._caller.owned(prompt)),)
        if self._model is not None and self._model.keep_alive_s is not None:
            self.engine.keep_alive(self._model.keep_alive_s)
        await asyncio.gather(*(stream.ready() for stream in self._streams))

    def with_defaults(self, prompt: GenerateRequest) -> GenerateRequest:
        """A prompt with what is said of the loaded model where it does not say it itself. Idempotent."""
        return with_defaults(prompt, self._model, self.engine.file_sampling)

    def with_turns(self, prompt: ChatPrompt) -> ChatPrompt:
        """A chat with the system prompt and the turns that the loaded model has."""
        return with_turns(prompt, self._model)

    # --- reading ---

    def usage(self, index: int) -> Usage | None:
        """The latest count of a stream's tokens: that of its prompt is right from its first token on."""
        return self._streams[index].usage

    def counts(self, index: int) -> Usage:
        """All tokens of a stream so far."""
        return self._streams[index].counts

    def timings(self, index: int) -> tuple[float, float]:
        """Seconds until the first token of a stream, waiting included, and from there on."""
        return self._streams[index].timings

    async def completions(self) -> list[Completion]:
        """All generations, whole, in the order of their prompts."""
        return await asyncio.gather(*(stream.collect() for stream in self._streams))

    async def turns(self) -> list[ChatTurn]:
        """The same, each read as text, thoughts and tool calls."""
        found: list[list[ChatEvent]] = [[] for _ in self._prompts]
        async for index, event in self.events():
            found[index].append(event)
        if not all(events and isinstance(events[-1], Ended) for events in found):
            raise asyncio.CancelledError("the generation was aborted while it was read")
        return [whole_turn(events) for events in found]

    async def deltas(self) -> AsyncIterator[tuple[int, TokenDelta]]:
        """What comes of each stream, with the position of its prompt, as it comes."""
        if len(self._streams) == 1:  # the common case does without a task per token
            async for delta in self._streams[0]:
                yield 0, delta
            return
        waiting = {asyncio.create_task(_anext(s)): (i, s) for i, s in enumerate(self._streams)}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda t: waiting[t][0]):
                    delta = task.result()
                    index, stream = waiting.pop(task)
                    if delta.finish_reason is None:
                        waiting[asyncio.create_task(_anext(stream))] = index, stream
                    yield index, delta
        finally:
            for task in waiting:
                task.add_done_callback(_look_at)
                task.cancel()

    async def events(self) -> AsyncIterator[tuple[int, ChatEvent]]:
        """The same as events of turns; each turn ends with its `Ended`, and its stream with it."""
        parsers = [self._parser(prompt) for prompt in self._prompts]
        async for index, delta in self.deltas():
            parser = parsers[index]
            for event in _as_text(delta) if parser is None else parser.push(delta):
                yield index, event
            if parser is not None and parser.over:
                self._streams[index].stop()

    def _parser(self, prompt: GenerateRequest) -> ChatParser | None:
        """What makes events of a stream's deltas; None for what continues raw text, which is not read for thoughts and calls."""
        if isinstance(prompt.prompt, TextPrompt | InfillPrompt):
            return None
        use = prompt.prompt.tool_use if isinstance(prompt.prompt, ChatPrompt) else ToolUse()
        info = self.engine.info
        tool_format = ToolFormat.GENERIC if info is None else info.tool_format  # None: unloaded meanwhile
        tags = None if info is None else info.thinking_tags
        return ChatParser(tool_format, tags, use.callable, forced=use.forced)

    # --- ending ---

    async def finish(self, reading: Coroutine[Any, Any, T]) -> T:
        """The result of what reads all that is left, e.g. `turns()`. Nothing runs on after it, however it ends.

        Raises:
            KolosalError: a generation failed.
            ClientDisconnect: the client left.
        """
        try:
            return await self._watched(reading)
        finally:
            self.abort()

    def abort(self) -> None:
        """Stop all streams that still run, and leave the place."""
        self._stop()
        self._place.leave()

    def _stop(self) -> None:
        for stream in self._streams:
            stream.abort()

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        return await (work if self._request is None else unless_disconnected(self._request, work))


async def start_generation(
    request: Request, model: str | None, prompts: Sequence[GenerateRequest]
) -> Generation:
    """A generation that has started, see `Generation.start`; the caller must `abort()` it in the end."""
    generation = Generation(caller_of(request), request)
    await generation.start(model, prompts)
    return generation


async def within(patience_s: float, starting: Awaitable[T]) -> T:
    """What a start gives, waited for but not for ever.

    Raises:
        QueueTimeout: it took longer.
    """
    try:
        async with asyncio.timeout(patience_s):
            return await starting
    except TimeoutError:
        raise QueueTimeout(
            f"The request waited {patience_s:g} seconds for its turn and was given up",
            retry_after_s=30,
        ) from None


def _as_text(delta: TokenDelta) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    if delta.text or delta.logprobs:
        events.append(TextPiece(delta.text, delta.logprobs))
    if delta.finish_reason is not None and delta.usage is not None:
        events.append(Ended(delta.finish_reason, delta.usage, delta.stop))
    return events


async def _anext(stream: RequestStream) -> TokenDelta:
    """`anext` as the coroutine that a task needs."""
    return await anext(stream)


def _look_at(task: asyncio.Task[TokenDelta]) -> None:
    """The first failure was reported; without a look at the others asyncio would log them as lost."""
    if not task.cancelled():
        task.exception()
