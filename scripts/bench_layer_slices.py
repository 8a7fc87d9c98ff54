"""Measures a long prompt beside streams, read in steps and in the prefill context, in turns in one run.

One thread computes everything, and its processor time is the clock: what else the machine does hardly changes the figures.

Run it with the environment's Python: .venv/bin/python scripts/bench_layer_slices.py MODEL.gguf
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from kolosal.bench import prompts
from kolosal.engines.ipc.messages import FromWorker, StepOutputs
from kolosal.engines.parameters import FittedConfig, FittedParameters
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.sampling import SamplingParams

N_STREAMS, STREAM_PROMPT, LONG = 3, 40, 0  # the long prompt's request id is 0


class Run:
    """One engine loop, and when each request was given tokens."""

    def __init__(self, backend: LlamaCppBackend, target_step_s: float) -> None:
        self.backend = backend
        self.loop = EngineLoop(backend, self._note, target_step_s=target_step_s, clock=time.thread_time)
        self.times: defaultdict[int, list[float]] = defaultdict(list)
        for slot in range(backend.n_slots):
            backend.release(slot)

    def _note(self, frame: FromWorker) -> None:
        if isinstance(frame, StepOutputs):
            for output in frame.outputs:
                self.times[output.request_id].append(time.thread_time())

    def submit(self, request_id: int, tokens: list[int], n_tokens: int) -> None:
        sampler = self.backend.new_sampler(SamplingParams(temperature=0.0, ignore_eos=True), tokens)
        length = len(tokens) + n_tokens
        self.loop.submit(Sequence(request_id, [*tokens], len(tokens), length, sampler, Detokenizer()))

    def long_prompt(self, tokens: list[int], streams: list[list[int]]) -> tuple[float, list[float]]:
        """Seconds to its first token, and the gaps of the streams until then."""
        for request_id, prompt in enumerate(streams, 1):
            self.submit(request_id, prompt, 4000)
        while any(len(self.times[request_id]) < 4 for request_id in range(1, len(streams) + 1)):
            self.loop.step()
        begun = time.thread_time()
        self.submit(LONG, tokens, 1)
        while not self.times[LONG]:
            self.loop.step()
        of_streams = [at for request_id, at in self.times.items() if request_id != LONG]
        gaps = [b - a for at in of_streams for a, b in pairwise(at) if b > begun]
        return self.times[LONG][0] - begun, gaps


def main() -> None:
    """Print one line for each way and round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--tokens", type=int, default=1930, help="of the long prompt (default 1930)")
    parser.add_argument("--rounds", type=int, default=2, help="of each way (default 2)")
    parser.add_argument(
        "--target-step-ms", type=int, default=150, help="as the loading parameter (default 150)"
    )
    options = parser.parse_args()
    parameters = FittedParameters(n_parallel=8, kv_pool_tokens=16384, n_threads=1, n_gpu_layers=0)
    backend = LlamaCppBackend(FittedConfig("bench", str(options.model), parameters), lambda _: None)
    prefill_cells, rng = backend.prefill_cells, prompts.generator("1")

    def fresh(n_tokens: int) -> list[int]:
        text = prompts.fresh(rng, n_tokens)
        return backend.tokenize(text, add_special=True, parse_special=False)[:n_tokens]

    tokens, streams = fresh(options.tokens), [fresh(STREAM_PROMPT) for _ in range(N_STREAMS)]
    for _ in range(options.rounds):
        alone = 0.0
        for way, beside, cells in (
            ("alone", [], 0),
            ("in steps", streams, 0),
            ("apart", streams, prefill_cells),
        ):
            backend.prefill_cells = cells
            first, gaps = Run(backend, options.target_step_ms / 1000).long_prompt(tokens, beside)
            alone = alone or first
            told = f", gap p50 {statistics.median(gaps):.2f} max {max(gaps):.2f} s" if gaps else ""
            print(
                f"{way:8} {len(tokens)} tokens: first token {first:.1f} s, x {first / alone:.2f}{told}",
                flush=True,
            )
    backend.close()


if __name__ == "__main__":
    main()
