"""PipelineGeneration: the steps of a pipeline generated one after another on one engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request

from kolosal.admission import Place
from kolosal.chat.events import TextPiece
from kolosal.conversation.pipeline import Pipeline, PipelineStep
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.services import caller_of, services_of
from kolosal.schema import ChatPrompt, GenerateRequest

END = b"[[END]]"
"""The last chunk of a stream that is complete; one that failed ends without it."""


class PipelineGeneration:
    """An answer being made. Whoever has one calls `abort()` in the end: idempotent, synchronous."""

    def __init__(self, request: Request, model: str | None, pipeline: Pipeline) -> None:
        self._caller = caller_of(request)
        self._parameters = services_of(request).conversation.parameters
        self._model = model
        self._pipeline = pipeline
        self._step = pipeline.next_step()
        self._generation: Generation | None = None
        self._place: Place | None = None

    async def start(self) -> None:
        """Begin the first step and wait for its first event, so that an error can still be a status line."""
        if self._step is not None:
            await self._generate(self._step)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What is `shown`, with `END` after it."""
        async for text in self.shown():
            yield text.encode()
        yield END

    async def shown(self) -> AsyncIterator[str]:
        """What the pipeline shows, as it comes."""
        while self._step is not None and self._generation is not None:
            if self._step.status:
                yield self._step.status
            async for _, event in self._generation.events():
                if isinstance(event, TextPiece) and (text := self._pipeline.push(event.text)):
                    yield text
            if text := self._pipeline.end_step():
                yield text
            self._step = self._pipeline.next_step()
            if self._step is not None:
                await self._generate(self._step)

    async def result(self) -> dict[str, str]:
        """The whole of it."""
        try:
            await self.start()
            async for _ in self.shown():
                pass
        finally:
            self.abort()
        return self._pipeline.result

    def abort(self) -> None:
        """Stop the generation that runs."""
        if self._generation is not None:
            self._generation.abort()

    async def _generate(self, step: PipelineStep) -> None:
        if self._place is None:  # one for all steps, left with the last
            self._place = self._caller.place()
        self._generation = Generation(self._caller, place=self._place)
        prompt = GenerateRequest(ChatPrompt(step.messages), self._parameters.sampling())
        await self._generation.start(self._model, [prompt])
        self._model = (
            self._model or self._generation.engine.engine_id
        )  # later steps stay on the engine of the first
