"""Answering: the stages of a course generated one after another on one engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request

from kolosal.admission import Place
from kolosal.chat.events import TextPiece
from kolosal.conversation.parameters import GenerationParameters
from kolosal.conversation.pipeline import Pipeline, Stage
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.sse import EventStream
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.services import caller_of, services_of
from kolosal.routes.common.turns import Turns
from kolosal.schema import ChatPrompt, GenerateRequest

END = b"[[END]]"
"""The last chunk of a stream that is complete; one that failed ends without it."""


class Answering:
    """An answer being made. Whoever has one calls `abort()` in the end: idempotent, synchronous."""

    def __init__(self, request: Request, model: str | None, course: Pipeline) -> None:
        self._request = request
        self._parameters: GenerationParameters = services_of(request).conversation.parameters
        self._model = model
        self._course = course
        self._stage = course.next_stage()
        self._turns: Turns | None = None
        self._place: Place | None = None

    async def start(self) -> None:
        """Begin the first stage and wait for its first event, so that an error can still be a status line.

        Raises:
            KolosalError: there is no such engine, it cannot be loaded or is full, or the prompt was refused.
        """
        if self._stage is not None:
            self._turns = await self._generate(self._stage)

    async def shown(self) -> AsyncIterator[str]:
        """What the course shows, as it comes.

        Raises:
            KolosalError: a generation failed.
        """
        while self._stage is not None and self._turns is not None:
            if self._stage.status:
                yield self._stage.status
            async for _, event in self._turns.events():
                if isinstance(event, TextPiece) and (text := self._course.push(event.text)):
                    yield text
            if text := self._course.end_stage():
                yield text
            self._stage = self._course.next_stage()
            if self._stage is not None:
                self._turns = await self._generate(self._stage)

    async def result(self) -> dict[str, str]:
        """The whole of it.

        Raises:
            KolosalError: a generation failed.
        """
        try:
            await self.start()
            async for _ in self.shown():
                pass
        finally:
            self.abort()
        return self._course.result

    def abort(self) -> None:
        """Stop the generation that runs."""
        if self._turns is not None:
            self._turns.abort()

    async def _generate(self, stage: Stage) -> Turns:
        request = GenerateRequest(ChatPrompt(stage.messages), self._parameters.sampling())
        caller = caller_of(self._request)
        if self._place is None:  # one for all stages, left with the last
            self._place = caller.place()
        generation = Generation(caller, self._place)
        try:
            await generation.start(self._model, [request])
        except BaseException:
            generation.abort()
            raise
        self._model = generation.engine.engine_id  # later stages stay on the engine of the first
        return Turns(generation, [request])


async def started(request: Request, answering: Answering) -> Answering:
    """An answer whose first event is there; the caller must `abort()` it in the end.

    Raises:
        KolosalError: it cannot start.
        ClientDisconnect: the client left meanwhile; nothing runs on.
    """
    try:
        await unless_disconnected(request, answering.start())
    except BaseException:
        answering.abort()
        raise
    return answering


class TextStream(EventStream):
    """Plain text as it comes, then `END`. One that fails ends early, without it: plain text has no other sign."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(_chunks(answering), answering.abort, lambda _: b"", ping=b"")
        self.headers["content-type"] = "text/plain; charset=utf-8"


async def _chunks(answering: Answering) -> AsyncGenerator[bytes, None]:
    async for text in answering.shown():
        yield text.encode()
    yield END
