"""LocalHost: a model in a worker process of our own, without a daemon.

Owns a thread with an event loop, because engines live on one, and hands its results to whichever thread asks.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, TypeVar

from kolosal.chat.events import TextPiece
from kolosal.chat.parser import ChatParser
from kolosal.config.load import process_environment
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Call, CallResult, Detokenize, Render, Rendered, Tokenize, Tokenized
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.stream import RequestStream
from kolosal.errors import EngineDied, InternalError
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, TokenDelta, TokensPrompt

T = TypeVar("T")
A = TypeVar("A", Tokenized, Rendered)


class LocalHost:
    """A model in a worker process. It ends with `close`, when this is collected, or with the interpreter."""

    def __init__(self, config: EngineConfig, command: WorkerCommand | None = None) -> None:
        """Load the model and wait for it.

        Raises:
            LoadFailed: the worker could not load it.
        """
        command = command or WorkerCommand(environment=worker_environment(process_environment()))
        self._loop = asyncio.new_event_loop()
        self._engine = Engine(config, command)
        thread = threading.Thread(
            target=_run, args=(self._loop,), name=f"model {config.engine_id}", daemon=True
        )
        thread.start()
        self._close = weakref.finalize(self, _end, self._engine, self._loop, thread)
        try:
            self._wait(self._engine.ensure_ready())
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._engine.engine_id

    @property
    def closed(self) -> bool:
        """Whether the model was let go."""
        return not self._close.alive

    def stream(
        self, prompt: ChatPrompt | TokensPrompt, sampling: SamplingParams
    ) -> Generator[str, None, None]:
        stream = self._wait(self._begin(prompt, sampling))
        try:
            parser = self._parser()
            while (delta := self._wait(_next(stream))) is not None:
                text = "".join(event.text for event in parser.push(delta) if isinstance(event, TextPiece))
                if text:
                    yield text
        finally:
            self._abort(stream)

    def generate(self, prompt: TokensPrompt, sampling: SamplingParams) -> tuple[int, ...]:
        stream = self._wait(self._begin(prompt, sampling))
        try:
            return self._wait(stream.collect()).tokens
        finally:
            self._abort(stream)

    def render(self, prompt: ChatPrompt) -> str:
        return self._call(Render(prompt), Rendered).text

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> tuple[int, ...]:
        call = Tokenize(text, add_special=add_special, parse_special=parse_special, with_pieces=False)
        return self._call(call, Tokenized).tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._call(Detokenize(tuple(tokens)), Rendered).text

    def close(self) -> None:
        self._close()

    async def _begin(self, prompt: ChatPrompt | TokensPrompt, sampling: SamplingParams) -> RequestStream:
        await self._engine.ensure_ready()  # again, where the worker died since
        return self._engine.generate(GenerateRequest(prompt, sampling))

    def _call(self, call: Call, kind: type[A]) -> A:
        async def result() -> CallResult:
            await self._engine.ensure_ready()
            return await self._engine.call(call)

        answer = self._wait(result())
        if not isinstance(answer, kind):
            raise InternalError
        return answer

    def _parser(self) -> ChatParser:
        info = self._engine.info
        if info is None:
            raise EngineDied(f"Engine '{self.name}' is not loaded")
        return ChatParser(info.tool_format, info.thinking_tags)

    def _abort(self, stream: RequestStream) -> None:
        if self._close.alive:
            self._loop.call_soon_threadsafe(stream.abort)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs on the loop; given up when this thread is interrupted."""
        if not self._close.alive:
            work.close()
            raise EngineDied(f"The model '{self._engine.engine_id}' was closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


async def _next(stream: RequestStream) -> TokenDelta | None:
    return await anext(stream, None)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(engine: Engine, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def close() -> None:
        try:
            await engine.close()
        finally:
            loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)
    if threading.current_thread() is not thread:  # collected over there, waiting would be for ever
        thread.join()
