"""Sequence: one generation inside the worker, from its prompt to its last token.

Owns what the scheduler, the engine loop and the text side need to know about it. Pure data: no native calls.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from kolosal.engines.worker.backend import Sampler
from kolosal.engines.worker.constraint import Constraint
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.speculative import Speculator
from kolosal.schema import Usage


class Sequence:
    """One generation.

    ```
    tokens:  [ prompt ............. | generated ...... ]
                                    ^ n_prompt
    cells:   [ n_computed ............ ]                  in the KV cache, under sequence id `slot`
    ```
    A running sequence always has at least one token that is not computed: the next input. A preempted one keeps its
    tokens and has no cells; it computes them again when it is scheduled again.
    """

    __slots__ = (
        "cache_scope",
        "client",
        "constraint",
        "draft",
        "ignore_eos",
        "max_length",
        "n_cached",
        "n_computed",
        "n_logged",
        "n_prompt",
        "n_top",
        "priority",
        "prompt_logprobs",
        "request_id",
        "sampler",
        "slot",
        "speculator",
        "text",
        "tokens",
        "turn",
        "use_cache",
    )

    def __init__(
        self,
        request_id: int,
        prompt: list[int],
        *,
        generated: Seq[int] = (),
        max_length: int,
        sampler: Sampler,
        text: Detokenizer,
        ignore_eos: bool = False,
        priority: int = 0,
        use_cache: bool = True,
        cache_scope: str = "",
        client: str = "",
        speculator: Speculator | None = None,
        constraint: Constraint | None = None,
        n_top: int | None = None,
        prompt_logprobs: bool = False,
        n_logged: int = 0,
    ) -> None:
        self.request_id = request_id
        self.tokens = [*prompt, *generated]
        """Prompt and generated tokens; the first of these may be of a worker before this one."""
        self.n_prompt = len(prompt)
        self.turn = 0
        """When it is its client's turn, among those of its priority; set when it is queued."""
        self.n_computed = 0
        """Leading tokens whose KV cells exist."""
        self.n_cached: int | None = None
        """Tokens found in the cache when it was first admitted; None before."""
        self.max_length = max_length
        """Length of `tokens` at which generation ends: the end of the window, or of what was asked for."""
        self.slot: int | None = None
        """llama.cpp's sequence id while running; None while waiting."""
        self.sampler = sampler
        self.text = text
        self.ignore_eos = ignore_eos
        self.priority = priority
        """Higher runs first and is preempted last."""
        self.use_cache = use_cache
        """Whether it may take cells from others and leave its own for others."""
        self.cache_scope = cache_scope
        self.client = client or cache_scope
        """With whose requests it takes turns."""
        """Only sequences of the same scope share cells."""
        self.speculator = speculator
        """Guesses its next tokens; None where speculation is off."""
        self.draft: list[int] = []
        """Guessed tokens that are computed in the step at hand."""
        self.constraint = constraint
        """What the text must conform to."""
        self.n_top = n_top
        """How many of the most probable tokens to report beside each of its own; None reports none."""
        self.prompt_logprobs = prompt_logprobs
        """Whether the prompt's tokens are reported too; then no cells of others serve it."""
        self.n_logged = n_logged
        """Prompt tokens that were reported."""

    @property
    def n_pending(self) -> int:
        """Tokens still to be computed; 1 when decoding, more after forced tokens."""
        return len(self.tokens) - self.n_computed

    @property
    def wants_prompt_rows(self) -> bool:
        """Whether some of its prompt is still to be reported, which takes a row of logits for each token."""
        return self.prompt_logprobs and self.n_logged < self.n_prompt

    def prompt_rows(self, start: int, end: int) -> int:
        """How many rows of logits the tokens from `start` to before `end` need, which are their last; in a prompt whose
        tokens are reported. A row is about the token after it."""
        return max(0, end - max(start, self.n_logged - 1))

    def close(self) -> None:
        """Free what it holds outside the KV cache. Called once, when it has ended."""
        self.sampler.close()
        if self.speculator is not None:
            self.speculator.close()

    def usage(self) -> Usage:
        """True counts so far."""
        return Usage(self.n_prompt, len(self.tokens) - self.n_prompt, min(self.n_cached or 0, self.n_prompt))
