"""The sampler of one sequence, built from the stages `sampler` decided on: a llama.cpp chain, or numpy where greedy.

llama.cpp's chain makes a list of all tokens first, which for the most probable one alone takes eight times as long as
looking for it (measured: 0.08 ms and 0.01 ms for 49,152 tokens). Guesses are checked that way, up to 63 in a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, assert_never

import llama_cpp.llama_cpp as native
import numpy as np

from kolosal.engines.worker.backend import BackendError
from kolosal.engines.worker.sampler import (
    Draw,
    ForbidEnd,
    Greedy,
    MinP,
    Penalties,
    Stage,
    Temperature,
    TopK,
    TopP,
)


def make_sampler(
    stages: Seq[Stage], n_vocab: int, prompt: Seq[int], end_tokens: Callable[[], Seq[int]]
) -> GreedySampler | NativeSampler:
    """The fastest sampler that does what the stages say; `end_tokens` is asked where they are forbidden."""
    match stages:
        case [Greedy()]:
            return GreedySampler(n_vocab)
        case [ForbidEnd(), Greedy()]:
            return GreedySampler(n_vocab, end_tokens())
        case _:
            return NativeSampler(stages, n_vocab, prompt, end_tokens)


def logits(context: native.llama_context_p, row: int, n_vocab: int) -> np.ndarray:
    """The logits of a row of the last batch, in llama.cpp's own memory: writing to it changes what is sampled."""
    return np.ctypeslib.as_array(native.llama_get_logits_ith(context, row), shape=(n_vocab,))


class GreedySampler:
    """Always the most probable token, of two the one with the smaller id; never a forbidden one."""

    def __init__(self, n_vocab: int, forbidden: Seq[int] = ()) -> None:
        self._n_vocab = n_vocab
        self._forbidden = list(forbidden)

    def sample(self, context: native.llama_context_p, row: int) -> int:
        """Choose the token after a row of the last batch."""
        choices = logits(context, row, self._n_vocab)
        if self._forbidden:
            choices[self._forbidden] = -np.inf
        return int(choices.argmax())

    def accept(self, token: int) -> None:
        """Nothing depends on what was chosen before."""

    def close(self) -> None:
        """Holds nothing."""


class NativeSampler:
    """Owns a native chain; `close` frees it and the stages in it. Used by the engine thread once it is made."""

    def __init__(
        self, stages: Seq[Stage], n_vocab: int, prompt: Seq[int], end_tokens: Callable[[], Seq[int]]
    ) -> None:
        """Build the chain; `end_tokens` is asked where they are forbidden."""
        self._chain = native.llama_sampler_chain_init(native.llama_sampler_chain_params(no_perf=True))
        if not self._chain:
            raise BackendError("llama_sampler_chain_init returned no sampler")
        for stage in stages:
            forbidden = end_tokens() if isinstance(stage, ForbidEnd) else ()
            sampler = _native_stage(stage, n_vocab, forbidden)
            if not sampler:
                self.close()
                raise BackendError(f"llama.cpp made no sampler for {stage}")
            if isinstance(stage, Penalties) and stage.sees_prompt:
                for token in prompt[-stage.last_n :]:
                    native.llama_sampler_accept(sampler, token)
            native.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: native.llama_context_p, row: int) -> int:
        """Choose the token after a row of the last batch, and remember it for penalties."""
        return int(native.llama_sampler_sample(self._chain, context, row))

    def accept(self, token: int) -> None:
        native.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain:
            native.llama_sampler_free(self._chain)
            self._chain = None


def _native_stage(stage: Stage, n_vocab: int, forbidden: Seq[int]) -> Any:
    match stage:
        case ForbidEnd():
            biases = (native.llama_logit_bias * len(forbidden))(
                *(native.llama_logit_bias(token, -math.inf) for token in forbidden)
            )
            return native.llama_sampler_init_logit_bias(n_vocab, len(forbidden), biases)
        case Penalties():
            return native.llama_sampler_init_penalties(
                n_vocab, stage.last_n, stage.repeat, stage.frequency, stage.presence
            )
        case TopK(k=k):
            return native.llama_sampler_init_top_k(k)
        case TopP(p=p):
            return native.llama_sampler_init_top_p(p, 1)
        case MinP(p=p):
            return native.llama_sampler_init_min_p(p, 1)
        case Temperature(t=t):
            return native.llama_sampler_init_temp(t)
        case Draw(seed=seed):
            return native.llama_sampler_init_dist(seed)
        case Greedy():
            return native.llama_sampler_init_greedy()
        case _:
            assert_never(stage)
