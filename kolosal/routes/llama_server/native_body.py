"""The fields that `/completion` and `/infill` have besides those of the OpenAI dialect.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kolosal.routes.openai.body import GenerationBody
from kolosal.sampling import MAX_INT, TopLogprobs

MAX_RESPONSE_FIELDS = 64
"""Keys that one request may pick."""

Hint = Annotated[int, Field(ge=-1, le=MAX_INT)]
"""A number that llama-server goes by and that changes no answer here."""


class NativeBody(GenerationBody):
    """llama-server's own fields. `model` may be left out where it is clear which engine is meant."""

    return_tokens: bool | None = None
    """Whether to give the ids of the generated tokens, too."""
    n_probs: TopLogprobs | None = None
    """How many of the most probable tokens to report beside each one, as `completion_probabilities`."""
    response_fields: (
        Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=MAX_RESPONSE_FIELDS)]
        | None
    ) = None
    """The keys that a whole answer, and the last event of a stream, have; `a/b` is the key `b` of the object `a`."""
    t_max_predict_ms: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    """Milliseconds after the first token in which an answer that has a line break ends; 0 and -1: none."""
    n_keep: Hint | None = None
    """Changes nothing: a context is never shifted, so that nothing of a prompt is lost."""
    n_discard: Hint | None = None
    """Changes nothing, as `n_keep`."""
    id_slot: Hint | None = None
    """Changes nothing: cells of earlier prompts are found in whichever slot they are."""
    n_cache_reuse: Hint | None = None
    """Changes nothing: common beginnings are found without it."""
    sse_ping_interval: Hint | None = None
    """Changes nothing: a silent stream has a comment every 15 seconds."""

    @property
    def time_limit_s(self) -> float | None:
        """`t_max_predict_ms` in seconds; None: there is none."""
        limit_ms = self.t_max_predict_ms or 0
        return limit_ms / 1000 if limit_ms > 0 else None
