"""Measures two engines that generate at once, with llama.cpp's threads spinning long or short for each other.

Run it with the environment's Python, on a machine that does nothing else: .venv/bin/python scripts/bench_engines.py MODEL.gguf
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.sampling import SamplingParams
from kolosal.schema import GenerateRequest, TextPrompt

SPINS = ("libgomp's own", "20000", "2000", "500", "100", "0")


async def main() -> None:
    """Print one line for each length of spinning."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of each answer (default 96)")
    parser.add_argument("--rounds", type=int, default=3, help="answers of one engine alone (default 3)")
    options = parser.parse_args()
    print(f"{psutil.cpu_count(logical=False)} cores, {options.model.name}, tokens/s")
    print(f"{'GOMP_SPINCOUNT':16}{'one engine':>12}{'two at once':>14}")
    for spin in SPINS:
        alone, together = await measure(options.model, spin, options.tokens, options.rounds)
        print(f"{spin:16}{alone:12.1f}{together:14.1f}", flush=True)


async def measure(model: Path, spin: str, n_tokens: int, rounds: int) -> tuple[float, float]:
    """Tokens/s of one engine alone (median) and of two at once (together)."""
    environment = worker_environment(os.environ)
    del environment["GOMP_SPINCOUNT"]
    if spin.isdigit():
        environment["GOMP_SPINCOUNT"] = spin
    registry = EngineRegistry(WorkerCommand(environment=environment))
    parameters = LoadingParameters(n_ctx=1024, n_parallel=1, speculation=False)
    try:
        engines = [
            await registry.add(EngineConfig(name, str(model), parameters), load=True) for name in ("a", "b")
        ]
        await speed(engines, 8)  # warm up
        alone = statistics.median([await speed(engines[:1], n_tokens) for _ in range(rounds)])
        return alone, await speed(engines, n_tokens)
    finally:
        await registry.close(drain_s=0)


async def speed(engines: Sequence[Engine], n_tokens: int) -> float:
    """Tokens/s of all engines while each gives one answer."""
    sampling = SamplingParams(temperature=0, max_tokens=n_tokens, ignore_eos=True)
    prompt = TextPrompt(f"{time.time()}: once upon a time")
    started = time.perf_counter()
    request = GenerateRequest(prompt, sampling, use_cache=False)
    await asyncio.gather(*(engine.generate(request).collect() for engine in engines))
    return n_tokens * len(engines) / (time.perf_counter() - started)


if __name__ == "__main__":
    asyncio.run(main())
