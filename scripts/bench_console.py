"""Measures what an open console costs a daemon with many streams, and what a row of activity costs.

Run it with the environment's Python from the checkout: .venv/bin/python scripts/bench_console.py. The engine is the tests' fake one, which
makes a token in every step, so that the daemon's own work is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[1]

PROGRAM = """
import os, sys
from kolosal.config.settings import Settings
from kolosal.daemon import run
from tests.fake_worker import fake_worker_argv
settings = Settings.model_validate_json(sys.argv[1])
sys.exit(run(settings, os.environ, fake_worker_argv("step_s=" + sys.argv[2])))
"""

PATHS = (
    ("v1/engines?details=true&resident=true", 2),
    ("v1/metrics/system", 2),
    ("v1/metrics/history", 2),
    ("v1/activity?limit=0", 1),
)
"""What the views ask for, and after how many seconds again: more than one page does, which shows one view."""

FOLLOWED = ("v1/events?kinds=engine.state,engine.progress,engine.removed", "v1/activity?follow=true")


async def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each round (default 15)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="with and without a console, in turns (default 3)"
    )
    parser.add_argument("--step", type=float, default=0.1, help="seconds between tokens (default 0.1)")
    options = parser.parse_args()
    print(
        f"a row of activity: {activity_us():.1f} us, so {activity_us() / 10:.2f} % of a core at 1000 requests/s"
    )
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(Path(folder), options.streams, options.step)
        try:
            await measure(process, url, options)
        finally:
            process.terminate()
            process.wait(30)


def activity_us(n: int = 50_000) -> float:
    """Microseconds that one request costs in the activity, from its begin to its row."""
    from kolosal.observe.activity import ActivityLog  # noqa: PLC0415 - not before the arguments are read
    from kolosal.observe.context import RequestContext  # noqa: PLC0415

    log = ActivityLog()
    started = time.process_time()
    for number in range(n):
        context = RequestContext(
            f"req_{number}", "/v1/chat/completions", None, "openai", "key_1", "laptop", "tiny"
        )
        log.begin(context)
        log.end(context, 200, complete=True)
    return (time.process_time() - started) / n * 1e6


def start(folder: Path, n_streams: int, step_s: float) -> tuple[subprocess.Popen[str], str]:
    """A daemon with one engine, and its address."""
    sys.path.insert(0, str(ROOT))
    from tests.gguf_files import gguf  # noqa: PLC0415

    (folder / "tiny.gguf").write_bytes(gguf())
    parameters = {"n_parallel": min(n_streams, 256), "n_ctx": 100_000}
    settings = {
        "server": {"port": 0, "state_dir": str(folder)},
        "engines": {"keep": False},
        "models": [{"id": "tiny", "path": str(folder / "tiny.gguf"), "parameters": parameters}],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(settings), str(step_s)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    return process, process.stdout.readline().split()[-1]


async def measure(process: subprocess.Popen[str], url: str, options: argparse.Namespace) -> None:
    """Rounds with and without a console while streams run."""
    daemon = psutil.Process(process.pid)
    gaps: list[float] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False) as http:  # noqa: S113 - streams last
        streams = [asyncio.create_task(stream(http, gaps)) for _ in range(options.streams)]
        await asyncio.sleep(5)
        results: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for with_console in (False, True):
                watching = asyncio.create_task(console(http)) if with_console else None
                gaps.clear()
                before = sum(daemon.cpu_times()[:2])
                started = time.monotonic()
                await asyncio.sleep(options.seconds)
                used = 100 * (sum(daemon.cpu_times()[:2]) - before) / (time.monotonic() - started)
                ranked = sorted(gaps)
                results[with_console].append(
                    (used, statistics.median(ranked), ranked[int(len(ranked) * 0.99)])
                )
                if watching is not None:
                    watching.cancel()
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    print(
        f"{options.streams} streams, a token every {options.step} s; medians of {options.rounds} rounds of {options.seconds} s"
    )
    print(f"{'':16}{'daemon, % of a core':>22}{'gap p50 ms':>14}{'gap p99 ms':>14}")
    for with_console, rows in results.items():
        used, p50, p99 = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{'with a console' if with_console else 'without':16}{used:22.1f}{p50 * 1000:14.1f}{p99 * 1000:14.1f}"
        )


async def stream(http: httpx.AsyncClient, gaps: list[float]) -> None:
    """Streams one after the other, noting the time between pieces."""
    body = {"model": "tiny", "prompt": "x", "max_tokens": 50_000, "stream": True}
    while True:
        before = None
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            async for _ in answer.aiter_raw():
                now = time.perf_counter()
                if before is not None:
                    gaps.append(now - before)
                before = now


async def console(http: httpx.AsyncClient) -> None:
    """All that every view of a page asks for, at once, until cancelled."""

    async def poll(path: str, every_s: float) -> None:
        while True:
            await http.get(path)
            await asyncio.sleep(every_s)

    async def follow(path: str) -> None:
        async with http.stream("GET", path) as answer:
            async for _ in answer.aiter_raw():
                pass

    async with asyncio.TaskGroup() as group:
        for path, every_s in PATHS:
            group.create_task(poll(path, every_s))
        for path in FOLLOWED:
            group.create_task(follow(path))


if __name__ == "__main__":
    asyncio.run(main())
