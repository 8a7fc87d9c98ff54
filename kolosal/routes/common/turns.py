"""A chat request's turns, whatever the dialect: generated, and read as text, thoughts and tool calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request

from kolosal.chat.events import CallBegin, CallPiece, ChatEvent, ChatTurn, Ended, TextPiece, ThinkingPiece
from kolosal.chat.formats import ToolFormat
from kolosal.chat.parser import ChatParser
from kolosal.chat.thoughts import ThoughtCounter
from kolosal.engines.engine import Engine
from kolosal.engines.stream import Completion
from kolosal.http.disconnect import unless_disconnected
from kolosal.routes.common.generation import Generation, start_generation
from kolosal.schema import ChatPrompt, GenerateRequest, TokenDelta, TokenLogprobs, ToolCall, Usage


class Turns:
    """The turns of one HTTP request, usually one. Whoever has them calls `abort()` in the end: idempotent, synchronous."""

    def __init__(self, generation: Generation, requests: Sequence[GenerateRequest]) -> None:
        self._generation = generation
        self._requests = requests

    @property
    def engine(self) -> Engine:
        """The engine that generates."""
        return self._generation.engine

    def usage(self, index: int) -> Usage | None:
        """The latest count of a turn's tokens: that of its prompt is right from its first token on."""
        return self._generation.usage(index)

    def timings(self, index: int) -> tuple[float, float]:
        """Seconds until a turn's first token, waiting included, and from there on."""
        return self._generation.timings(index)

    def abort(self) -> None:
        """Stop all that still run."""
        self._generation.abort()

    async def events(self) -> AsyncIterator[tuple[int, ChatEvent]]:
        """The events of all turns with the turn's position, as they come; each turn ends with its `Ended`.

        Raises:
            KolosalError: one of them failed.
        """
        parsers = [self._parser(request) for request in self._requests]
        counters = [ThoughtCounter() for _ in self._requests]
        async for index, delta in self._generation.deltas():
            for event in counters[index].count(delta, parsers[index].push(delta)):
                yield index, event

    async def collect(self) -> list[ChatTurn]:
        """All turns, whole.

        Raises:
            KolosalError: one of them failed.
        """
        return [self._read(index, whole) for index, whole in enumerate(await self._generation.collect())]

    def _read(self, index: int, completion: Completion) -> ChatTurn:
        delta = TokenDelta(
            completion.text,
            completion.tokens,
            completion.finish_reason,
            completion.usage,
            completion.logprobs,
            completion.stop,
        )
        events = self._parser(self._requests[index]).push(delta)
        return whole_turn(ThoughtCounter().count(delta, events))

    def _parser(self, request: GenerateRequest) -> ChatParser:
        info = self.engine.info
        tools = request.prompt.tool_use.callable if isinstance(request.prompt, ChatPrompt) else ()
        if info is None:  # the engine was unloaded meanwhile; its streams have failed
            return ChatParser(ToolFormat.GENERIC, None, tools=bool(tools))
        return ChatParser(info.tool_format, info.thinking_tags, tools=bool(tools), schemas=tools)


async def start_turns(request: Request, model: str | None, requests: Sequence[GenerateRequest]) -> Turns:
    """Turns that have started: each has its first event; the caller must `abort()` them in the end.

    Raises:
        KolosalError: they cannot start.
        ClientDisconnect: the client left meanwhile; nothing runs on.
    """
    return Turns(await start_generation(request, model, requests), requests)


async def collect_turns(request: Request, turns: Turns) -> list[ChatTurn]:
    """All turns whole, or nothing when the client leaves.

    Raises:
        KolosalError: one of them failed.
        ClientDisconnect: the client left; nothing runs on.
    """
    try:
        return await unless_disconnected(request, turns.collect())
    finally:
        turns.abort()


def whole_turn(events: Sequence[ChatEvent]) -> ChatTurn:
    """The sum of all events of a turn."""
    text: list[str] = []
    thinking: list[str] = []
    logprobs: list[TokenLogprobs] = []
    calls: list[tuple[CallBegin, list[str]]] = []
    for event in events:
        match event:
            case TextPiece():
                text.append(event.text)
                logprobs += event.logprobs
            case ThinkingPiece():
                thinking.append(event.text)
            case CallBegin():
                calls.append((event, []))
            case CallPiece():
                calls[event.index][1].append(event.arguments)
            case Ended():
                made = tuple(ToolCall(begin.id, begin.name, "".join(pieces)) for begin, pieces in calls)
                return ChatTurn(
                    "".join(text),
                    "".join(thinking),
                    made,
                    event.finish_reason,
                    event.usage,
                    event.stop,
                    tuple(logprobs),
                    event.thinking_tokens,
                )
    raise ValueError("a turn without an end")
