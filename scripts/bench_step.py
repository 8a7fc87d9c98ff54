"""Measures what Python takes for a step with 1 to 256 streams: in the worker, and in the daemon for each delta.

The worker's part is the engine loop and its frames over the tests' fake model, here one that computes nothing; with --model also over a
real one, without the time in llama_decode. The daemon's part is the processor time of a daemon whose engine makes a token for
every stream in every step. Processor time is the clock, so that a busy machine hardly changes the figures.

Run it with the environment's Python from the checkout: .venv/bin/python scripts/bench_step.py
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path

import httpx
import psutil
from bench_console import start

from kolosal.engines.parameters import FittedConfig, FittedParameters
from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.frame_writer import FrameWriter
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.sampling import SamplingParams

STREAMS = (1, 16, 64, 256)
PROMPT = 16
"""Tokens of each prompt."""
N_CTX = 1024
REPEATS = 5
"""Of each measurement, of which the least counts: what is more is the machine's."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=50, help="of each measurement (default 50)")
    parser.add_argument("--model", type=Path, metavar="PATH", help="GGUF file, for the worker's part over it")
    parser.add_argument(
        "--profile", action="store_true", help="show what takes the worker's time at the most streams"
    )
    parser.add_argument("--no-daemon", action="store_true", help="the worker's part only")
    options = parser.parse_args()
    print(f"{'streams':>8}{'worker: us a step':>20}{'a stream':>10}", end="")
    print("" if options.model is None else f"{'over a model':>15}{'a stream':>10}", end="")
    print("" if options.no_daemon else f"{'daemon: us a delta':>20}")
    for n_streams in STREAMS:
        step_us = min(worker_us(fake(n_streams), n_streams, options.steps) for _ in range(REPEATS))
        print(f"{n_streams:8}{step_us:20.0f}{step_us / n_streams:10.1f}", end="", flush=True)
        if options.model is not None:
            step_us = over_model_us(options.model, n_streams, options.steps)
            print(f"{step_us:15.0f}{step_us / n_streams:10.1f}", end="", flush=True)
        print("" if options.no_daemon else f"{daemon_us(n_streams):20.0f}", flush=True)
    if options.profile:
        profile = cProfile.Profile()
        worker_us(fake(STREAMS[-1]), STREAMS[-1], options.steps, profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def limits(n_streams: int) -> FittedParameters:
    return FittedParameters(n_ctx=N_CTX, n_parallel=n_streams, kv_pool_tokens=N_CTX * n_streams, n_threads=1)


def fake(n_streams: int) -> Backend:
    """A backend that computes nothing and says the same token for ever."""
    from tests.fake_worker.backend import FakeBackend  # noqa: PLC0415 - found from the checkout only

    class NoModel(FakeBackend):
        def decode(self, chunks: Seq[Chunk]) -> None:
            pass

        def sample(self, *_: object) -> int:
            return 97

    return NoModel(FittedConfig("bench", "fake.gguf", limits(n_streams)), lambda _: None)


def over_model_us(model: Path, n_streams: int, n_steps: int) -> float:
    """Microseconds of a step outside llama_decode."""
    from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend  # noqa: PLC0415 - numpy, and llama.cpp
    from kolosal.engines.worker.llamacpp.native import native  # noqa: PLC0415

    decode, inside = native.llama_decode, [0.0]

    def timed(*arguments: object) -> object:
        begun = time.thread_time()
        result = decode(*arguments)
        inside[0] += time.thread_time() - begun
        return result

    backend = LlamaCppBackend(FittedConfig("bench", str(model), limits(n_streams)), lambda _: None)
    native.llama_decode = timed
    try:
        return worker_us(backend, n_streams, n_steps, elsewhere_s=lambda: inside[0])
    finally:
        native.llama_decode = decode
        backend.close()


def worker_us(
    backend: Backend,
    n_streams: int,
    n_steps: int,
    profile: cProfile.Profile | None = None,
    elsewhere_s: Callable[[], float] = lambda: 0.0,
) -> float:
    """Microseconds of a step of so many streams, but for the time that `elsewhere_s` counts."""
    with Path(os.devnull).open("wb", buffering=0) as pipe:
        writer = FrameWriter(pipe)
        loop = EngineLoop(backend, writer.write)
        for request_id in range(n_streams):
            tokens = [*range(97, 97 + PROMPT)]
            sampler = backend.new_sampler(SamplingParams(temperature=0.0, ignore_eos=True), tokens)
            sequence = Sequence(request_id, tokens, PROMPT, N_CTX, sampler, Detokenizer(), ignore_eos=True)
            loop.submit(sequence)
        for _ in range(8 + n_streams // 16):  # until all prompts are read
            loop.step()
        begun, begun_elsewhere = time.thread_time(), elsewhere_s()
        if profile is not None:
            profile.enable()
        for _ in range(n_steps):
            loop.step()
        if profile is not None:
            profile.disable()
        seconds = time.thread_time() - begun - (elsewhere_s() - begun_elsewhere)
    return seconds / n_steps * 1e6


def daemon_us(n_streams: int, n_tokens: int = 200) -> float:
    """Microseconds of processor that a daemon takes for a delta of one of so many chats, from the worker's frame to the socket."""
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(Path(folder), n_streams, max(0.005, n_streams / 4000))
        try:
            rounds = [asyncio.run(_chats(process, url, n_streams, n_tokens)) for _ in range(2)]
        finally:
            process.terminate()
            process.wait(30)
    return statistics.fmean(rounds[1:])  # the first one loads


async def _chats(process: subprocess.Popen[str], url: str, n_streams: int, n_tokens: int) -> float:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "1:"}],
        "max_tokens": n_tokens,
        "stream": True,
    }
    daemon, n_deltas = psutil.Process(process.pid), 0

    async def chat(http: httpx.AsyncClient) -> None:
        nonlocal n_deltas
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for piece in answer.aiter_raw():
                n_deltas += piece.count(b"\n\n")

    before = sum(daemon.cpu_times()[:2])
    connections = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=connections, trust_env=False) as http:
        await asyncio.gather(*(chat(http) for _ in range(n_streams)))
    return (sum(daemon.cpu_times()[:2]) - before) / n_deltas * 1e6


if __name__ == "__main__":
    main()
