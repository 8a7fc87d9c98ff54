"""The sampler of one sequence, made of a `sampler_chain`: a llama.cpp chain, or numpy where greedy.

llama.cpp's chain makes a list of all tokens first, which for the most probable one alone takes eight times as long as
looking for it (measured: 0.08 ms and 0.01 ms for 49,152 tokens). Draft tokens are verified that way, up to 63 in a step. What a
request forbids or biases is written to the logits themselves, so that it costs nothing where it is not asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from kolosal.engines.worker.backend import BackendError
from kolosal.engines.worker.llamacpp.logits import StepLogits
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.sampler_chain import ChainSampler

FORBIDDING_BIAS = -100.0
"""A bias of this or less forbids the token."""


class LogitBias:
    """What a request adds to logits, and which tokens it forbids: those are never chosen unless nothing else is left."""

    def __init__(self, biases: Seq[tuple[int, float]], forbidden: Seq[int]) -> None:
        """`biases`: (token, what is added to its logit), see `FORBIDDING_BIAS`; `forbidden`: more tokens that are."""
        added = [(token, amount) for token, amount in biases if amount > FORBIDDING_BIAS]
        banned = {*forbidden, *(token for token, amount in biases if amount <= FORBIDDING_BIAS)}
        self._forbidden = np.array(sorted(banned), dtype=np.intp)
        self._biased = np.array([token for token, _ in added], dtype=np.intp)
        self._amounts = np.array([amount for _, amount in added], dtype=np.float32)

    def apply(self, row: np.ndarray) -> None:
        """Change the logits of a row. Where a grammar leaves only what is forbidden, the grammar wins."""
        row[self._biased] += self._amounts
        kept = row[self._forbidden]
        row[self._forbidden] = -np.inf
        if row.max() == -np.inf:
            row[self._forbidden] = kept


class GreedySampler:
    """Always the most probable token, of two the one with the smaller id."""

    def __init__(self, bias: LogitBias | None = None) -> None:
        self.bias = bias

    def sample(self, logits: StepLogits, output: int) -> int:
        """Choose the token after a row."""
        if self.bias is not None:
            self.bias.apply(logits.row(output))
        return logits.most_probable(output)

    def accept(self, token: int) -> None:
        """Nothing depends on what was chosen before."""

    def close(self) -> None:
        """Holds nothing."""


class NativeSampler:
    """Owns a native chain; `close` frees it and the samplers in it. Used by the engine thread once it is made."""

    def __init__(
        self,
        chain: Seq[ChainSampler],
        vocab: native.llama_vocab_p,
        prompt: Seq[int],
        bias: LogitBias | None = None,
    ) -> None:
        """Build the chain.

        Raises:
            BackendError: llama.cpp did not make it, or one of its samplers.
        """
        self._bias = bias
        self._chain = native.llama_sampler_chain_init(native.llama_sampler_chain_params(no_perf=True))
        if not self._chain:
            raise BackendError("llama_sampler_chain_init returned no sampler")
        for each in chain:
            sampler = _native(each, vocab)
            if not sampler:
                self.close()
                raise BackendError(f"llama.cpp made no sampler for {each}")
            for token in prompt[-each.n_prompt :] if each.n_prompt else ():
                native.llama_sampler_accept(sampler, token)
            native.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, logits: StepLogits, output: int) -> int:
        """Choose the token after a row, and remember it for penalties."""
        if self._bias is not None:
            self._bias.apply(logits.row(output))
        return int(native.llama_sampler_sample(self._chain, logits.context, logits.index(output)))

    def accept(self, token: int) -> None:
        native.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain:
            native.llama_sampler_free(self._chain)
            self._chain = None


def _native(sampler: ChainSampler, vocab: native.llama_vocab_p) -> Any:
    make = getattr(native, f"llama_sampler_init_{sampler.name}")
    if sampler.name != "dry":
        return make(*sampler.arguments)
    *numbers, texts = sampler.arguments
    breakers = [text.encode().replace(b"\0", b"") for text in texts]  # C strings end at a zero byte
    return make(vocab, *numbers, (ctypes.c_char_p * len(breakers))(*breakers), len(breakers))
