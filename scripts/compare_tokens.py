"""Counts how often sharing, batching and speculation change a greedy answer, against the same request alone and uncached.

In exact arithmetic they change nothing. Floating point adds in another order when a batch has another shape, so that two
tokens of nearly the same logit may change places: from there on the answers differ, as they would between two machines.

Run it with the environment's Python: .venv/bin/python scripts/compare_tokens.py MODEL.gguf
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from kolosal.bench import prompts
from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.sampling import SamplingParams
from kolosal.schema import ChatPrompt, GenerateRequest, Message

Answers = list[tuple[int, ...]]
Way = Callable[[Engine, Sequence[str], int], Awaitable[Answers]]


async def main() -> None:
    """Print one line for each way to answer the same prompts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--prompts", type=int, default=32, help="how many (default 32)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer (default 64)")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts (default 1)")
    options = parser.parse_args()
    rng = prompts.generator(f"{options.seed}")
    shared = prompts.fresh(rng, 300)
    texts = [f"{shared} {prompts.question(rng)} {number}" for number in range(options.prompts)]

    registry = EngineRegistry(WorkerCommand(environment=worker_environment(os.environ)))
    try:
        plain = await _engine(registry, "plain", options.model, speculation=False)
        guessing = await _engine(registry, "guessing", options.model, speculation=True)
        reference = await alone(plain, texts, options.tokens)
        print(f"{'':34}{'same answers':>14}{'tokens until one differs':>28}")
        for title, engine, way in (
            ("again, alone and uncached", plain, alone),
            ("prefix from the cache", plain, cached),
            ("16 at once, prefix shared", plain, at_once),
            ("speculated, alone and uncached", guessing, alone),
            ("speculated, 16 at once, shared", guessing, at_once),
        ):
            _report(title, reference, await way(engine, texts, options.tokens))
    finally:
        await registry.close(drain_s=0)


async def _engine(registry: EngineRegistry, name: str, model: Path, *, speculation: bool) -> Engine:
    parameters = LoadingParameters(n_parallel=16, kv_pool_tokens=16384, speculation=speculation)
    return await registry.add(EngineConfig(name, str(model), parameters), load=True)


def _report(title: str, wanted: Answers, got: Answers) -> None:
    same = sum(a == b for a, b in zip(wanted, got, strict=True))
    compared = sum(_agreeing(a, b) for a, b in zip(wanted, got, strict=True))
    differing = len(wanted) - same
    rate = f"{compared // differing:,}" if differing else f"none in {compared:,}"
    print(f"{title:34}{f'{same} of {len(wanted)}':>14}{rate:>28}", flush=True)


def _agreeing(wanted: tuple[int, ...], got: tuple[int, ...]) -> int:
    """Tokens up to and with the first that differs."""
    pairs = enumerate(zip(wanted, got, strict=False), start=1)
    return next((count for count, (a, b) in pairs if a != b), len(wanted))


async def alone(engine: Engine, texts: Sequence[str], n_tokens: int) -> Answers:
    return [await _answer(engine, text, n_tokens, use_cache=False) for text in texts]


async def cached(engine: Engine, texts: Sequence[str], n_tokens: int) -> Answers:
    await _answer(engine, texts[0], 1, use_cache=True)
    return [await _answer(engine, text, n_tokens, use_cache=True) for text in texts]


async def at_once(engine: Engine, texts: Sequence[str], n_tokens: int) -> Answers:
    return list(await asyncio.gather(*(_answer(engine, text, n_tokens, use_cache=True) for text in texts)))


async def _answer(engine: Engine, text: str, n_tokens: int, *, use_cache: bool) -> tuple[int, ...]:
    sampling = SamplingParams(temperature=0, max_tokens=n_tokens, ignore_eos=True)
    request = GenerateRequest(ChatPrompt((Message("user", text),)), sampling, use_cache=use_cache)
    return tuple([token async for delta in engine.generate(request) for token in delta.tokens])


if __name__ == "__main__":
    asyncio.run(main())
