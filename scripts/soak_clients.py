"""Who uses the daemon during a soak: clients that stream, and one who unloads, loads and kills. They note how it went."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import psutil
from soak_figures import Sample

REQUEST_TIMEOUT_S = 300.0
"""A request that takes longer hangs."""

MAX_TOKENS = 32

MAX_WORDS = 40

MAX_KEPT_ERRORS = 20
"""How many unexplained errors are kept in their own words."""

DIED = "engine_died"
"""What a request may be told that one of our kills has hit twice."""


def ending(status: int | None, code: str | None, *, killed: bool) -> tuple[str, bool]:
    """How a request ended, and whether that is in order.

    `status` is None where the connection broke; `code` is that of an error, also of one within a stream; `killed` says
    whether we killed its worker meanwhile.
    """
    if status is None:
        return "connection broken", False
    if code is None and status < 400:
        return "answered", True
    told = f"{status} {code or 'without a code'}"
    refused = 400 <= status < 500
    return told, refused or (killed and code == DIED)


@dataclass
class Tally:
    """What the clients have seen."""

    began_at: float
    """On the monotonic clock: times of samples count from here."""
    ends: Counter[str] = field(default_factory=Counter)
    ttft: list[Sample] = field(default_factory=list)
    """Of requests whose engine was loaded and left alone."""
    unexplained: int = 0
    errors: list[str] = field(default_factory=list)
    """The first of the unexplained ones."""

    def end(self, how: str, *, in_order: bool, words: str = "") -> None:
        """Count a request."""
        self.ends[how] += 1
        if not in_order:
            self.unexplained += 1
            if len(self.errors) < MAX_KEPT_ERRORS:
                self.errors.append(f"{how}: {words[:300]}")


@dataclass
class Disturbances:
    """Which engines are being unloaded, loaded or killed, and when they last were."""

    now: set[str] = field(default_factory=set)
    ended_at: dict[str, float] = field(default_factory=dict)
    killed_at: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def of(self, engine: str) -> Iterator[None]:
        """Within this the engine is disturbed."""
        self.now.add(engine)
        try:
            yield
        finally:
            self.now.discard(engine)
            self.ended_at[engine] = time.monotonic()

    def spared(self, engine: str, since: float) -> bool:
        """Whether an engine was left alone since a time."""
        return engine not in self.now and self.ended_at.get(engine, 0.0) < since

    def killed(self, engine: str, since: float) -> bool:
        """Whether its worker was killed since a time."""
        return self.killed_at.get(engine, 0.0) >= since


@dataclass
class Client:
    """Asks one thing after the other, streams it, and leaves early now and then."""

    http: httpx.AsyncClient
    engines: tuple[str, ...]
    chance: random.Random
    leaves: float
    tally: Tally
    disturbances: Disturbances

    async def run(self, until: asyncio.Event) -> None:
        """Ask until told to stop; what is running then is finished."""
        while not until.is_set():
            await self._ask(self.chance.choice(self.engines))
            await asyncio.sleep(self.chance.uniform(0, 0.2))

    async def _ask(self, engine: str) -> None:
        sent_at = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                status, code, words = await self._stream(engine, sent_at)
        except httpx.HTTPError as exc:
            status, code, words = None, None, repr(exc)
        except TimeoutError:
            self.tally.end("hung", in_order=False, words=f"{engine}, {REQUEST_TIMEOUT_S:g} s")
            return
        if words == "left":
            self.tally.end("left early", in_order=True)
            return
        how, in_order = ending(status, code, killed=self.disturbances.killed(engine, sent_at))
        self.tally.end(how, in_order=in_order, words=words)

    async def _stream(self, engine: str, sent_at: float) -> tuple[int, str | None, str]:
        """Status, code of an error, its words; the words are `left` where this client had enough."""
        max_tokens = self.chance.randint(1, MAX_TOKENS)
        stays_for = self.chance.randrange(max_tokens) if self.chance.random() < self.leaves else None
        body = self._body(engine, max_tokens)
        async with self.http.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                error = orjson.loads(await response.aread()).get("error", {})
                return response.status_code, error.get("code"), str(error.get("message"))
            events = 0
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                if events == 0 and self.disturbances.spared(engine, sent_at):
                    now = time.monotonic()
                    self.tally.ttft.append(Sample(now - self.tally.began_at, now - sent_at))
                events += 1
                if line.startswith('data: {"error"'):
                    error = orjson.loads(line[6:])["error"]
                    return response.status_code, error.get("code") or "", str(error.get("message"))
                if stays_for is not None and events > stays_for:
                    return response.status_code, None, "left"
        return response.status_code, None, ""

    def _body(self, engine: str, max_tokens: int) -> dict[str, Any]:
        words = " ".join(str(self.chance.randrange(1000)) for _ in range(self.chance.randint(1, MAX_WORDS)))
        return {
            "model": engine,
            "prompt": f"Once upon a time there were {words}",
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "stream": True,
        }


@dataclass
class Trouble:
    """Unloads an engine and loads it again every so often, and kills a worker now and then."""

    http: httpx.AsyncClient
    engines: tuple[str, ...]
    chance: random.Random
    tally: Tally
    disturbances: Disturbances
    unloads: int = 0
    kills: int = 0

    async def churn(self, every_s: float, until: asyncio.Event) -> None:
        """Unload and load one engine after the other."""
        turn = 0
        while not await _passed(every_s, until):
            engine = self.engines[turn % len(self.engines)]
            turn += 1
            with self.disturbances.of(engine):
                answer = await self.http.post(f"/engines/{engine}/unload", json={"timeout_s": 60})
                if answer.status_code not in (httpx.codes.OK, httpx.codes.CONFLICT):
                    self.tally.end(f"unload: {answer.status_code}", in_order=False, words=answer.text)
                self.unloads += answer.is_success
                await self.load(engine)

    async def kill(self, every_s: float, until: asyncio.Event) -> None:
        """Kill the worker of a random engine."""
        while not await _passed(every_s, until):
            engine = self.chance.choice(self.engines)
            pid = (await self.http.get(f"/engines/{engine}")).json()["worker_pid"]
            if pid is None:
                continue
            with self.disturbances.of(engine):
                self.disturbances.killed_at[engine] = time.monotonic()
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
                    self.kills += 1
                await self.load(engine)

    async def load(self, engine: str) -> None:
        """Have an engine loaded."""
        answer = await self.http.post(f"/engines/{engine}/load", json={})
        if not answer.is_success:
            self.tally.end(f"load: {answer.status_code}", in_order=False, words=answer.text)


async def _passed(seconds: float, until: asyncio.Event) -> bool:
    """Wait so long, or until told to stop; whether it was the latter."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await until.wait()
    return until.is_set()
