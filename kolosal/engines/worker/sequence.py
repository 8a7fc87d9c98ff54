"""Sequence: one generation inside the worker, from its prompt to its last token.

Owns what the scheduler, the engine loop and the text side need to know about it. Pure data: no native calls.
"""

from __future__ import annotations

from kolosal.engines.worker.backend import Sampler
from kolosal.engines.worker.detokenize import TextStream
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
        "ignore_eos",
        "max_length",
        "n_computed",
        "n_prompt",
        "request_id",
        "sampler",
        "slot",
        "text",
        "tokens",
    )

    def __init__(
        self,
        request_id: int,
        prompt: list[int],
        *,
        max_length: int,
        sampler: Sampler,
        text: TextStream,
        ignore_eos: bool = False,
    ) -> None:
        self.request_id = request_id
        self.tokens = prompt
        """Prompt and generated tokens."""
        self.n_prompt = len(prompt)
        self.n_computed = 0
        """Leading tokens whose KV cells exist."""
        self.max_length = max_length
        """Length of `tokens` at which generation ends: the end of the window, or of what was asked for."""
        self.slot: int | None = None
        """llama.cpp's sequence id while running; None while waiting."""
        self.sampler = sampler
        self.text = text
        self.ignore_eos = ignore_eos

    @property
    def n_pending(self) -> int:
        """Tokens still to be computed; 1 when decoding."""
        return len(self.tokens) - self.n_computed

    @property
    def decoding(self) -> bool:
        """The whole prompt is computed and each step adds a token."""
        return self.slot is not None and self.n_pending == 1 and self.n_computed > 0

    def usage(self) -> Usage:
        """True counts so far."""
        return Usage(prompt_tokens=self.n_prompt, completion_tokens=len(self.tokens) - self.n_prompt)
