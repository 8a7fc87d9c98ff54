"""What goes wrong, on purpose: kills, clients that leave, and what is measured meanwhile. Tests and scripts share it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from kolosal.engines.engine import Engine
from kolosal.engines.in_flight import InFlightGeneration
from kolosal.engines.stream import Completion
from kolosal.errors import EngineDied
from kolosal.schema import GenerateRequest
from tests.engines.helpers import DEADLINE_S, eventually

NEAR_TIE = 0.25
"""Two tokens whose log-probabilities are closer than this may change places when a sum is added up in another order."""


# --- engines in this process ---


async def killed_while_answering(
    engine: Engine, requests: Sequence[GenerateRequest], *, after_tokens: int = 1, how: int | None = None
) -> list[Completion | BaseException]:
    """The ends of all requests, when the worker is killed as soon as one of them has some tokens.

    `how` is a signal to send instead of the one that kills.
    """
    streams = [engine.generate(request) for request in requests]
    collecting = [asyncio.ensure_future(stream.collect()) for stream in streams]
    try:
        in_flight = [one for one in engine._requests if isinstance(one, InFlightGeneration)]
        await eventually(lambda: any(len(one._tokens) >= after_tokens for one in in_flight))
        assert engine.worker_pid is not None
        worker = psutil.Process(engine.worker_pid)
        worker.kill() if how is None else worker.send_signal(how)
        return await asyncio.gather(*collecting, return_exceptions=True)
    finally:
        for stream in streams:
            stream.abort()
        await asyncio.gather(*collecting, return_exceptions=True)


def same_but_for_near_ties(expected: Completion, got: Completion) -> bool:
    """Whether two greedy answers are equal up to the first place where two tokens were as good as each other.

    Both need `logprobs` of the most probable tokens.
    """
    for ours, theirs in zip(expected.logprobs, got.logprobs, strict=False):
        if ours.chosen.token != theirs.chosen.token:
            chances = {chance.token: chance.logprob for chance in ours.top}
            other = chances.get(theirs.chosen.token)
            return other is not None and ours.chosen.logprob - other < NEAR_TIE
    return len(expected.logprobs) == len(got.logprobs)


async def killed_at_random(engine: Engine, times: int, chance: random.Random, *, most_s: float) -> None:
    """Kill the engine's worker so many times, each time it has been there for a while."""
    for _ in range(times):
        await eventually(lambda: engine.worker_pid is not None, 3 * DEADLINE_S)
        await asyncio.sleep(chance.uniform(0, most_s))
        if engine.worker_pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(engine.worker_pid).kill()
        killed = engine.worker_pid
        await eventually(lambda killed=killed: engine.worker_pid != killed or killed is None)  # type: ignore[misc]


async def kept_busy(
    engine: Engine,
    request_of: Callable[[random.Random], tuple[GenerateRequest, str]],
    chance: random.Random,
    until: asyncio.Event,
) -> Counter[str]:
    """A client that asks one thing after the other, and leaves early now and then; counts how its requests ended.

    `request_of` makes a request and the text that answers it. What ended well has that text: anything else is an
    AssertionError.
    """
    ends: Counter[str] = Counter()
    while not until.is_set():
        request, expected = request_of(chance)
        try:
            await asyncio.wait_for(engine.ensure_ready(), 3 * DEADLINE_S)
            stream = engine.generate(request)
            try:
                text, stays_for = "", chance.choice((2, 5, None, None, None))
                async with asyncio.timeout(3 * DEADLINE_S):
                    async for delta in stream:
                        text += delta.text
                        if stays_for is not None and len(text) > stays_for:
                            break
                assert text == expected if stays_for is None else expected.startswith(text)
                ends["answered" if stays_for is None else "left"] += 1
            finally:
                stream.abort()
        except EngineDied:
            ends["died"] += 1
    return ends


class Stalls(list[float]):
    """The seconds of processor time that each callback of the event loop took; the longest is the worst stall."""

    @property
    def figure(self) -> str:
        """The worst one as a person reads it, and of how many."""
        return f"worst stall {max(self) * 1000:.2f} ms of {len(self)} callbacks"


@contextlib.contextmanager
def stalls() -> Iterator[Stalls]:
    """How long each callback of the event loop takes, meanwhile.

    Processor time and not the clock's, because other work shares the machine. Sees asyncio's own loop, in its debug mode or
    not, but not uvloop: where it has seen nothing, that is an AssertionError. What a process of tests holds is kept from
    garbage collection from then on: a daemon has far fewer objects.
    """
    gc.collect()
    gc.freeze()
    taken = Stalls()
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        taken.append(time.thread_time() - began)

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield taken
        assert taken, "no callback of the event loop was seen"
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


# --- a daemon in another process ---


@dataclass(slots=True)
class Streamed:
    """A streamed completion as a client has it in the end."""

    text: str = ""
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    done: bool = False
    usage: dict[str, Any] | None = None
    arrivals: list[float] = field(default_factory=list)
    """When each event came."""


async def streamed(
    http: httpx.AsyncClient, body: dict[str, Any], progress: Streamed | None = None
) -> Streamed:
    """Read a text completion to its end; `progress` is what is filled meanwhile."""
    result = progress or Streamed()
    whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", "/v1/completions", json=whole) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            result.error = response.json()["error"]
            return result
        async for data in _events(response):
            result.arrivals.append(time.monotonic())
            _add(result, data)
    return result


def _add(result: Streamed, data: bytes) -> None:
    assert not result.done, "an event after [DONE]"
    if data == b"[DONE]":
        result.done = True
        return
    event = json.loads(data)
    result.error = event.get("error") or result.error
    result.usage = event.get("usage") or result.usage
    for choice in event.get("choices", ()):
        result.text += choice["text"]
        result.finish_reason = choice["finish_reason"] or result.finish_reason


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for received in response.aiter_bytes():
        *frames, rest = (rest + received).split(b"\n\n")
        for frame in frames:
            if frame.startswith(b"data: "):
                yield frame.removeprefix(b"data: ")


async def leave_a_stream(url: str, body: dict[str, Any], *, after_events: int) -> None:
    """Connect, ask for a stream, read some events and close the connection."""
    data = json.dumps({**body, "stream": True}).encode()
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        for _ in range(after_events):
            await reader.readuntil(b"data: ")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds."""

    files: int
    threads: int
    children: int
    rss: int

    @classmethod
    def of(cls, process: psutil.Process) -> Footprint:
        if sys.platform == "win32":
            files = process.num_handles()
        else:
            files = process.num_fds()
        pool = sum(
            each.name.startswith("asyncio_") for each in threading.enumerate()
        )  # grows up to its bound, and stays
        threads = process.num_threads() - (pool if process.pid == os.getpid() else 0)
        return cls(files, threads, len(process.children()), process.memory_info().rss)

    def left(self, before: Footprint) -> dict[str, int]:
        """What there is more of than before. Less is no leak: a thread of an earlier test in this process may end meanwhile."""
        counts = ("files", "threads", "children")
        grown = {name: getattr(self, name) - getattr(before, name) for name in counts}
        return {name: n for name, n in grown.items() if n > 0}

    def growth(self, process: psutil.Process) -> int:
        """Bytes of memory that the process holds now, over these."""
        return int(process.memory_info().rss) - self.rss
