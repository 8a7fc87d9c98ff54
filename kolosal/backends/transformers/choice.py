"""TokenChoice: how one answer's tokens are chosen of logits. Knows no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class TokenChoice:
    """Penalties, then temperature and the cuts, then a draw by a generator of its own: so an answer does not depend on who else is
    computed beside it. The order is llama.cpp's."""

    def __init__(self, arguments: dict[str, Any], prompt: Sequence[int]) -> None:
        import torch  # noqa: PLC0415 - an extra

        self._torch = torch
        self._arguments = arguments
        self._prompt = [*prompt]
        self._said: list[int] = []
        self._generator = torch.Generator()
        seed = arguments["seed"]
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def accept(self, token: int, *, replayed: bool = False) -> None:
        """Note a token of the answer; `replayed`: one that a process before this one drew."""
        self._said.append(token)
        if replayed and self._arguments["temperature"] > 0:
            self._torch.rand(1, generator=self._generator)

    def choose(self, row: torch.Tensor) -> int:
        """The next token after a row of logits."""
        logits = self._penalised(row.detach().float().cpu())
        temperature = self._arguments["temperature"]
        if temperature == 0:
            return int(logits.argmax())
        top_k = self._arguments["top_k"]
        n_candidates = min(top_k, len(logits)) if top_k > 0 else len(logits)
        values, order = logits.topk(n_candidates)
        kept = self._kept(values)
        probabilities = (values[:kept] / temperature).softmax(0)
        drawn = self._torch.rand(1, generator=self._generator)
        at = int(self._torch.searchsorted(probabilities.cumsum(0), drawn))
        return int(order[min(at, kept - 1)])

    def _kept(self, values: torch.Tensor) -> int:
        """How many of the most probable tokens the cuts leave."""
        top_p, min_p, kept = self._arguments["top_p"], self._arguments["min_p"], len(values)
        if 0 < top_p < 1:
            reached = values[:kept].softmax(0).cumsum(0)
            kept = min(kept, int((reached < top_p).sum()) + 1)
        if min_p > 0:
            probabilities = values[:kept].softmax(0)
            kept = int((probabilities >= probabilities[0] * min_p).sum())
        return max(1, kept)

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        arguments = self._arguments
        repeat, last_n = arguments["repeat_penalty"], arguments["repeat_last_n"]
        if repeat != 1 and last_n:
            seen = [*self._prompt, *self._said]
            recent = sorted({*(seen if last_n < 0 else seen[-last_n:])})
            found = logits[recent]
            logits[recent] = found.where(found <= 0, found / repeat).where(found > 0, found * repeat)
        frequency, presence = arguments["frequency_penalty"], arguments["presence_penalty"]
        if frequency or presence:
            for token, count in Counter(self._said).items():
                logits[token] -= count * frequency + presence
        for token, bias in arguments["logit_bias"]:
            logits[token] = -self._torch.inf if bias <= -100 else logits[token] + bias
        return logits
