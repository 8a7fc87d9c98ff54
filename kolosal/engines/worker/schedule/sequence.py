"""Sequence: one generation inside the worker, from its prompt to its last token.

Owns what the scheduler, the engine loop and the text side need to know about it. Pure data: no native calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kolosal.engines.worker.backend import Sampler
from kolosal.engines.worker.constraint import Constraint
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.speculative import Speculator
from kolosal.engines.worker.thought_budget import ThoughtBudget
from kolosal.schema import TokenLogprobs, Usage


@dataclass(slots=True, eq=False)
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

    request_id: int
    tokens: list[int]
    """Prompt and generated tokens; the first of these may be of a worker before this one."""
    n_prompt: int
    max_length: int
    """Length of `tokens` at which generation ends: the end of the context, or of what was asked for."""
    sampler: Sampler
    text: Detokenizer
    ignore_eos: bool = False
    priority: int = 0
    """Higher runs first and is preempted last."""
    use_cache: bool = True
    """Whether it may take cells from others and leave its own for others."""
    cache_scope: str = ""
    """Only sequences of the same scope share cells."""
    client: str = ""
    """With whose requests it takes turns; where it is empty, its scope says who."""
    speculator: Speculator | None = None
    """Drafts its next tokens; None where speculation is off."""
    constraint: Constraint | None = None
    """What the text must conform to."""
    thoughts: ThoughtBudget | None = None
    """How long it may think; None where that has no bound."""
    n_top: int | None = None
    """How many of the most probable tokens to report beside each of its own; None reports none."""
    reports_shown: bool = False
    """Whether only tokens of shown text are reported: neither the end of the turn nor what a stop string is made of."""
    prompt_logprobs: bool = False
    """Whether the prompt's tokens are reported too; then no cells of others serve it."""
    n_logged: int = 0
    """Prompt tokens that were reported."""

    n_computed: int = field(default=0, init=False)
    """Leading tokens whose KV cells exist."""
    n_cached: int | None = field(default=None, init=False)
    """Tokens found in the cache when it was first admitted; None before."""
    slot: int | None = field(default=None, init=False)
    """llama.cpp's sequence id while running; None while waiting."""
    turn: int = field(default=0, init=False)
    """When it is its client's turn, among those of its priority; set when it is queued."""
    unshown: list[tuple[int, TokenLogprobs]] = field(default_factory=list, init=False)
    """Reports of tokens whose text was not shown yet, each with the character that its token begins at."""
    apart: bool = field(default=False, init=False)
    """Whether its prompt is worth the prefill context; set when it is admitted."""
    due: int = field(default=0, init=False)
    """When its prompt should be computed: after so many prompt tokens of the engine; set when it is admitted."""
    checkpoints: list[int] = field(default_factory=list, init=False)
    """How many of its tokens are computed where its memory is to be kept as it is, in order; those that are still to come."""
    draft: list[int] = field(default_factory=list, init=False)
    """Draft tokens that are computed in the step at hand."""

    def __post_init__(self) -> None:
        self.client = self.client or self.cache_scope

    @property
    def n_pending(self) -> int:
        """Tokens still to be computed; 1 when decoding, more after forced tokens."""
        return len(self.tokens) - self.n_computed

    @property
    def n_next(self) -> int:
        """Of the pending tokens those before its next checkpoint: no step computes more."""
        end = self.checkpoints[0] if self.checkpoints else len(self.tokens)
        return end - self.n_computed

    @property
    def prefill_order(self) -> tuple[int, int]:
        """Whose prompt is computed first: that of the lowest one."""
        return -self.priority, self.due

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

    def take_shown(self) -> list[TokenLogprobs]:
        """Reports that are due: all, or those of tokens of which some text was shown by now."""
        n_shown = self.text.n_shown
        hides = self.reports_shown and n_shown < self.text.n_chars
        shown = [each for start, each in self.unshown if start < n_shown or not hides]
        if shown and hides and self.text.stop is not None:  # the last one may reach into the stop string
            begins_at, last = self.unshown[len(shown) - 1]
            shown[-1] = _cut(last, n_shown - begins_at)
        self.unshown = self.unshown[len(shown) :]
        return shown

    def usage(self) -> Usage:
        """True counts so far."""
        return Usage(self.n_prompt, len(self.tokens) - self.n_prompt, min(self.n_cached or 0, self.n_prompt))


def _cut(entry: TokenLogprobs, n_chars: int) -> TokenLogprobs:
    """A report with no more than the first characters of its token."""
    text = entry.chosen.data.decode(errors="replace")
    if len(text) <= n_chars:
        return entry
    return replace(entry, chosen=replace(entry.chosen, piece=text[:n_chars].encode().decode("latin-1")))
