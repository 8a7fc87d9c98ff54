"""`options`: how tokens are chosen, with Ollama's names and defaults. Pure.

https://github.com/ollama/ollama/blob/main/docs/modelfile.md#valid-parameters-and-values

Ollama has options for loading a model here too (`num_gpu`, `num_thread`, …). How an engine is loaded is for its owner to say,
who may have others wait for it as well, so they are not looked at. Neither are options that no one knows, as in Ollama.
Of `num_ctx` is done what can be done for one request: it bounds its prompt and its answer.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kolosal.http.decode import RequestBody
from kolosal.routes.common.fields import StringOrStrings, as_tuple
from kolosal.routes.common.sampling_fields import UNLIMITED, sampling_params
from kolosal.sampling import DEFAULT_SEED, MAX_INT, MAX_TOKENS_LIMIT, SamplingParams, Seed

IGNORED_OPTIONS = (
    "num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread", "numa", "low_vram", "f16_kv",
    "logits_all", "vocab_only", "embedding_only", "num_keep", "draft_num_predict", "tfs_z", "penalize_newline",
)  # fmt: skip
"""Options for loading a model, and those of older versions that change nothing any more."""

_DEFAULTS: dict[str, float] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0}
"""Ollama's, where they are not those of `SamplingParams`."""


class Options(RequestBody):
    """`options`. Null is as good as leaving one out."""

    temperature: float | None = None
    """0 takes the most probable token; 0.8 unless given."""
    top_k: int | None = None
    """Keep this many of the most probable tokens; 0 and -1 turn it off; 40 unless given."""
    top_p: float | None = None
    """Keep the most probable tokens whose probabilities add up to this; 0.9 unless given."""
    min_p: float | None = None
    """Keep tokens at least this probable, as a share of the most probable one's; 0, which is off, unless given."""
    typical_p: float | None = None
    repeat_last_n: int | None = None
    """How far back penalties look, in tokens; -1 is the whole context; 64 unless given."""
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: Seed | None = None
    """The same seed gives the same text for the same request; less than 0 draws a fresh one."""
    num_predict: Annotated[int, Field(ge=-2, le=MAX_INT)] | None = None
    """Tokens to generate at most; 0 and less, and not given: to the end of the context window."""
    stop: StringOrStrings | None = None
    """The text ends before the first of these."""
    num_ctx: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    """Tokens that prompt and answer have together at most; never more than the engine's context window."""

    @property
    def max_context(self) -> int | None:
        """`num_ctx` as engines know it; None where it can bound nothing."""
        return self.num_ctx if self.num_ctx is not None and 0 < self.num_ctx <= MAX_TOKENS_LIMIT else None

    def to_sampling(self, logprobs: int | None) -> SamplingParams:
        """The options as engines know them; `logprobs` is how many of the most probable tokens to report."""
        own: dict[str, object] = {
            "stop": None if self.stop is None else as_tuple(self.stop),
            "logprobs": logprobs,
        }
        if self.seed is not None and self.seed < 0:
            own["seed"] = DEFAULT_SEED
        if self.num_predict is not None and self.num_predict > 0:
            own["max_tokens"] = self.num_predict
        elif self.num_predict is not None:
            own["max_tokens"] = UNLIMITED
        return sampling_params(self, own, _DEFAULTS, "options.")
