"""The sampler of one sequence, built from the stages of `sampler_chain`: a llama.cpp chain, or numpy where greedy.

llama.cpp's chain makes a list of all tokens first, which for the most probable one alone takes eight times as long as
looking for it (measured: 0.08 ms and 0.01 ms for 49,152 tokens). Draft tokens are verified that way, up to 63 in a step. What a
request forbids or biases is written to the logits themselves, so that it costs nothing where it is not asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, assert_never

import numpy as np

from kolosal.engines.worker.backend import BackendError
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.sampler_chain import (
    Bias,
    Draw,
    Dry,
    Greedy,
    MinP,
    Mirostat,
    Penalties,
    Stage,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    Typical,
    Xtc,
)

_LEAST_RELATIVE_P = 1e-30
"""Tokens less probable than this, compared with the most probable one, are dropped before the typical ones are looked for:
llama.cpp takes the logarithm of their probability, which may be 0, and then finds none typical."""

_MIROSTAT_CANDIDATES = 100
"""The most probable tokens that mirostat 1 estimates the text's surprise from: llama.cpp's own number."""


def make_sampler(
    stages: Seq[Stage],
    vocab: native.llama_vocab_p,
    prompt: Seq[int],
    end_tokens: Callable[[], Seq[int]],
) -> GreedySampler | NativeSampler:
    """The fastest sampler that does what the stages say; `end_tokens` is asked where they are forbidden.

    Raises:
        BackendError: llama.cpp did not make it.
    """
    n_vocab = int(native.llama_vocab_n_tokens(vocab))
    biases = [stage for stage in stages if isinstance(stage, Bias)]
    bias = _LogitBias(biases[0], end_tokens) if biases else None
    match others := [stage for stage in stages if not isinstance(stage, Bias)]:
        case [Greedy()]:
            return GreedySampler(n_vocab, bias)
        case _:
            return NativeSampler(others, vocab, prompt, bias)


def logits(context: native.llama_context_p, row: int, n_vocab: int) -> np.ndarray:
    """The logits of a row of the last batch, in llama.cpp's own memory: writing to it changes what is sampled."""
    return np.ctypeslib.as_array(native.llama_get_logits_ith(context, row), shape=(n_vocab,))


class _LogitBias:
    """What a request adds to logits, and which tokens it forbids."""

    def __init__(self, bias: Bias, end_tokens: Callable[[], Seq[int]]) -> None:
        forbidden = {*bias.forbidden, *(end_tokens() if bias.forbids_end else ())}
        self._forbidden = np.array(sorted(forbidden), dtype=np.intp)
        self._biased = np.array([token for token, _ in bias.added], dtype=np.intp)
        self._amounts = np.array([amount for _, amount in bias.added], dtype=np.float32)

    def apply(self, row: np.ndarray) -> None:
        """Change the logits of a row. Where a grammar leaves only what is forbidden, the grammar wins."""
        row[self._biased] += self._amounts
        kept = row[self._forbidden]
        row[self._forbidden] = -np.inf
        if row.max() == -np.inf:
            row[self._forbidden] = kept


class GreedySampler:
    """Always the most probable token, of two the one with the smaller id."""

    def __init__(self, n_vocab: int, bias: _LogitBias | None = None) -> None:
        self._n_vocab = n_vocab
        self._bias = bias

    def sample(self, context: native.llama_context_p, row: int) -> int:
        """Choose the token after a row of the last batch."""
        choices = logits(context, row, self._n_vocab)
        if self._bias is not None:
            self._bias.apply(choices)
        return int(choices.argmax())

    def accept(self, token: int) -> None:
        """Nothing depends on what was chosen before."""

    def close(self) -> None:
        """Holds nothing."""


class NativeSampler:
    """Owns a native chain; `close` frees it and the stages in it. Used by the engine thread once it is made."""

    def __init__(
        self,
        stages: Seq[Stage],
        vocab: native.llama_vocab_p,
        prompt: Seq[int],
        bias: _LogitBias | None = None,
    ) -> None:
        """Build the chain.

        Raises:
            BackendError: llama.cpp did not make it, or one of its stages.
        """
        self._n_vocab = int(native.llama_vocab_n_tokens(vocab))
        self._bias = bias
        self._chain = native.llama_sampler_chain_init(native.llama_sampler_chain_params(no_perf=True))
        if not self._chain:
            raise BackendError("llama_sampler_chain_init returned no sampler")
        for stage in stages:
            if isinstance(stage, Typical):
                self._add(MinP(_LEAST_RELATIVE_P), vocab, ())
            self._add(stage, vocab, _seen(stage, prompt))

    def _add(self, stage: Stage, vocab: native.llama_vocab_p, seen: Seq[int]) -> None:
        sampler = _native_stage(stage, vocab, self._n_vocab)
        if not sampler:
            self.close()
            raise BackendError(f"llama.cpp made no sampler for {stage}")
        for token in seen:
            native.llama_sampler_accept(sampler, token)
        native.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: native.llama_context_p, row: int) -> int:
        """Choose the token after a row of the last batch, and remember it for penalties."""
        if self._bias is not None:
            self._bias.apply(logits(context, row, self._n_vocab))
        return int(native.llama_sampler_sample(self._chain, context, row))

    def accept(self, token: int) -> None:
        native.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain:
            native.llama_sampler_free(self._chain)
            self._chain = None


def _seen(stage: Stage, prompt: Seq[int]) -> Seq[int]:
    """The tokens of the prompt that a stage counts."""
    match stage:
        case Penalties(last_n=last_n, sees_prompt=True) | Dry(last_n=last_n):
            return prompt[-last_n:]
        case _:
            return ()


def _native_stage(stage: Stage, vocab: native.llama_vocab_p, n_vocab: int) -> Any:  # noqa: C901 - a table
    match stage:
        case Bias():
            raise AssertionError("a bias is applied to the logits before the chain")
        case Penalties():
            return native.llama_sampler_init_penalties(
                n_vocab, stage.last_n, stage.repeat, stage.frequency, stage.presence
            )
        case Dry():
            return _native_dry(stage, vocab)
        case TopNSigma(n=n):
            return native.llama_sampler_init_top_n_sigma(n)
        case TopK(k=k):
            return native.llama_sampler_init_top_k(k)
        case Typical(p=p):
            return native.llama_sampler_init_typical(p, 1)
        case TopP(p=p):
            return native.llama_sampler_init_top_p(p, 1)
        case MinP(p=p):
            return native.llama_sampler_init_min_p(p, 1)
        case Xtc():
            return native.llama_sampler_init_xtc(stage.probability, stage.threshold, 1, stage.seed)
        case Temperature():
            return native.llama_sampler_init_temp_ext(stage.t, stage.spread, stage.exponent)
        case Mirostat(version=1):
            return native.llama_sampler_init_mirostat(
                n_vocab, stage.seed, stage.tau, stage.eta, _MIROSTAT_CANDIDATES
            )
        case Mirostat():
            return native.llama_sampler_init_mirostat_v2(stage.seed, stage.tau, stage.eta)
        case Draw(seed=seed):
            return native.llama_sampler_init_dist(seed)
        case Greedy():
            return native.llama_sampler_init_greedy()
        case _:
            assert_never(stage)


def _native_dry(stage: Dry, vocab: native.llama_vocab_p) -> Any:
    breakers = [text.encode().replace(b"\0", b"") for text in stage.breakers]  # C strings end at a zero byte
    array = (ctypes.c_char_p * len(breakers))(*breakers)
    return native.llama_sampler_init_dry(
        vocab, stage.multiplier, stage.base, stage.allowed_length, stage.last_n, array, len(breakers)
    )
