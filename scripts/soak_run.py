"""The soak itself: a daemon, three engines, clients, and what the processes hold meanwhile. scripts/soak.py starts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import checkout  # noqa: F401 - makes the next ones importable
import httpx
import psutil
from cli import EXIT_INTERRUPTED, main_guard
from soak import Options, parser
from soak_clients import REQUEST_TIMEOUT_S, Client, Disturbances, Tally, Trouble
from soak_daemon import Held, Memory, memory_mb, running_daemon, stopped
from soak_figures import Figures, first_and_last, grown_up, slope, table, verdict

from kolosal.native.preflight import SetupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

ENGINES = ("one", "two", "three")

PARAMETERS = {
    "n_ctx": 1024,
    "n_parallel": 4,
    "n_threads": max(1, (os.cpu_count() or 1) // len(ENGINES)),
}
"""Of each engine. Threads of three engines on the same cores would wait for each other."""

STATUS_EVERY_S = 60.0

SETTLED_S = 30
"""How long the daemon may take to come to rest."""


@dataclass
class Soak:
    """One run against a daemon that listens."""

    options: Options
    url: str
    daemon: psutil.Process
    say: Callable[[str], None]
    tally: Tally = field(default_factory=lambda: Tally(time.monotonic()))
    memory: Memory = field(default_factory=Memory)
    unloads: int = 0
    kills: int = 0
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to end early, with what was measured by then."""

    async def run(self) -> Figures:
        """Warm up, rest, measure, rest.

        Raises:
            SetupError: the model cannot be loaded.
            KeyboardInterrupt: it was ended before anything was measured.
        """
        options = self.options
        async with self._client() as http:
            for engine in ENGINES:
                body = {"engine_id": engine, "model_path": str(options.model), **PARAMETERS}
                answer = await http.post("/engines", json=body)
                if not answer.is_success:
                    raise SetupError(f"the model cannot be loaded: {answer.text}")
        await self._phase(options.warm_up_s, "warm-up")
        before = await self._rest()
        if self.enough.is_set():
            raise KeyboardInterrupt
        self.tally = Tally(time.monotonic(), unexplained=self.tally.unexplained, errors=self.tally.errors)
        self.memory = Memory()
        measured_s = await self._phase(options.measured_s, "measured")
        after = await self._rest()
        return self._figures(measured_s / 3600, before, after)

    async def _phase(self, seconds: float, name: str) -> float:
        """Let everybody loose for so long, or until it is enough; how long that was."""
        options, until, disturbances = self.options, asyncio.Event(), Disturbances()
        async with self._client() as http:
            chances = [
                random.Random(f"{options.seed} {name} {number}")  # noqa: S311 - no secret
                for number in range(options.clients + 1)
            ]
            trouble = Trouble(http, ENGINES, chances[-1], self.tally, disturbances)
            clients = [
                Client(http, ENGINES, chance, options.leaves, self.tally, disturbances)
                for chance in chances[:-1]
            ]
            async with asyncio.TaskGroup() as tasks:
                for client in clients:
                    tasks.create_task(client.run(until))
                tasks.create_task(trouble.churn(options.churn_s, until))
                tasks.create_task(trouble.kill(options.kill_s, until))
                tasks.create_task(self.memory.watch(self.daemon, self.tally, options.sample_s, until))
                tasks.create_task(self._report(name, seconds, trouble, until))
                began = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self.enough.wait()
                until.set()
                took_s = time.monotonic() - began
        self.unloads += trouble.unloads
        self.kills += trouble.kills
        return took_s

    async def _report(self, name: str, seconds: float, trouble: Trouble, until: asyncio.Event) -> None:
        while not until.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATUS_EVERY_S):
                    await until.wait()
            self.say(self.status(name, seconds, trouble))

    def status(self, name: str, seconds: float, trouble: Trouble) -> str:
        """One line: how far it is, and how it goes."""
        passed = time.monotonic() - self.tally.began_at
        held = Held.by(self.daemon)
        held_mb = memory_mb(self.daemon)
        return (
            f"{name} {passed / 60:5.1f} of {seconds / 60:.1f} min: {self.tally.ends.total()} requests,"
            f" {self.tally.ends['left early']} left, {self.unloads + trouble.unloads} unloads,"
            f" {self.kills + trouble.kills} kills, {self.tally.unexplained} errors; daemon {held_mb:.1f} MB,"
            f" {held.files} files, {held.children} workers"
        )

    async def _rest(self) -> Held:
        """What is held when all have gone and every engine is loaded."""
        async with self._client() as http:
            for engine in ENGINES:
                await http.post(f"/engines/{engine}/load", json={})
                await http.post("/v1/completions", json={"model": engine, "prompt": "x", "max_tokens": 1})
        for _ in range(SETTLED_S):  # connections that were closed just now are still there
            held = Held.by(self.daemon)
            await asyncio.sleep(1.0)
            if held == Held.by(self.daemon):
                break
        return held

    def _figures(self, hours: float, before: Held, after: Held) -> Figures:
        grown = (grown_up(samples, self.options.childhood_s) for samples in self.memory.workers.values())
        first, last = first_and_last(self.tally.ttft, hours)
        return Figures(
            hours=hours,
            daemon_mb_per_hour=_per_hour(slope([self.memory.daemon])),
            workers_mb_per_hour=_per_hour(slope(grown)),
            files=after.files - before.files,
            threads=after.threads - before.threads,
            children=after.children - before.children,
            ttft_first_s=first,
            ttft_last_s=last,
            unexplained=self.tally.unexplained,
            exit_status=None,
        )

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False
        ) as client:
            yield client


def _per_hour(per_second: float | None) -> float | None:
    return None if per_second is None else per_second * 3600


async def ended_by_ctrl_c(one: Soak) -> Figures:
    """Run a soak. The first Ctrl-C ends it early, the second at once."""
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)

    def enough(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        loop.call_soon_threadsafe(one.enough.set)

    signal.signal(signal.SIGINT, enough)
    try:
        return await one.run()
    finally:
        signal.signal(signal.SIGINT, before)


def soaked(options: Options, say: Callable[[str], None]) -> tuple[Figures, Soak]:
    """Run a daemon for so long; what was seen of it.

    Raises:
        SetupError: it does not start, or cannot load the model.
        KeyboardInterrupt: Ctrl-C before anything was measured.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kolosal-soak-"))
        process, url = stack.enter_context(running_daemon(Path(folder)))
        one = Soak(options, url, psutil.Process(process.pid), say)
        figures = asyncio.run(ended_by_ctrl_c(one))
        return replace(figures, exit_status=stopped(process)), one


def main(argv: Sequence[str] | None = None) -> int:
    options = Options.of(parser().parse_args(argv))
    if not options.model.is_file():
        raise SetupError(f"--model: there is no file {options.model}")
    try:
        figures, one = soaked(options, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("stopped before there was anything to tell", file=sys.stderr)
        return EXIT_INTERRUPTED
    lines = verdict(figures)
    print(f"\nSoak of {options.minutes:g} minutes, {figures.hours * 60:.1f} of them measured: {options.clients} clients, "
          f"{len(ENGINES)} engines, {one.unloads} unloads, {one.kills} kills")  # fmt: skip
    print("Requests, measured: " + ", ".join(f"{count} {how}" for how, count in one.tally.ends.most_common()))
    print(table(lines))
    for error in one.tally.errors:
        print(f"  {error}")
    return 0 if all(line.kept for line in lines) else 1


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
