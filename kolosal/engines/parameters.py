"""What an engine is made of: its name, its model file and the loading parameters that reach llama.cpp.

The one definition of these fields, their defaults and bounds: the HTTP body of `POST /engines`, the `models` section of
the configuration file and the worker's handshake all use it. Bounds come from the seed contract where it gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

MAX_PARALLEL = 256
"""llama.cpp's own limit of sequences in one context (LLAMA_MAX_SEQ)."""

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class FlashAttention(StrEnum):
    """When llama.cpp may use flash attention."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class SplitMode(StrEnum):
    """How a model is spread over several GPUs."""

    NONE = "none"
    LAYER = "layer"
    ROW = "row"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingParameters:
    """How a model is loaded. Every field reaches llama.cpp or the worker's scheduler; the docs say which."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    n_ctx: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Tokens one request may use, prompt and answer together."""
    n_gpu_layers: Annotated[int, Field(ge=-1, le=1000)] = 100
    """Layers kept in GPU memory; -1 is all, 0 none. Without a GPU it has no effect."""
    main_gpu_id: Annotated[int, Field(ge=-1, le=15)] = 0
    """The GPU that holds the model when it is not split; -1 lets llama.cpp choose."""
    split_mode: SplitMode = SplitMode.LAYER
    tensor_split: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)], ...], Field(max_length=16)
    ] = ()
    """Shares of the model per GPU, in any unit; empty lets llama.cpp choose by free memory."""
    n_parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 4
    """Requests generated at the same time; more wait in a queue."""
    kv_pool_tokens: Annotated[int, Field(ge=1, le=256_000_000)] | None = None
    """Cells of the KV cache all requests share. None: `n_ctx * n_parallel`, less where memory is short."""
    n_batch: Annotated[int, Field(ge=1, le=8192)] = 2048
    """Tokens handed to llama.cpp in one step at most."""
    n_ubatch: Annotated[int, Field(ge=1, le=8192)] = 512
    """Tokens computed together at most; cut to `n_batch`."""
    n_threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads for generation; None: one per physical core."""
    n_threads_batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads for prompts; None: as `n_threads`."""
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attn: FlashAttention = FlashAttention.AUTO
    use_mmap: bool = True
    use_mlock: bool = False
    """Keep the weights from being swapped out; needs the right to lock memory."""
    warmup: bool = False
    """Compute one empty step after loading, so that the first request does not pay for it."""
    chat_template: Annotated[str, Field(min_length=1, max_length=262_144)] | None = None
    """A Jinja chat template to use instead of the model's own."""
    cache_prompt: bool = True
    """Share the KV cells of common prefixes between requests, and keep those of finished ones while there is room."""
    speculation: bool = True
    """Guess tokens by prompt lookup and compute guesses along; the text stays the same."""
    draft_model_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A small model of the same vocabulary that guesses tokens where prompt lookup has no guess."""
    target_step_ms: Annotated[int, Field(ge=5, le=10_000)] = 150
    """While streams run, prompts are read in pieces that keep a step near this duration."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Seed of requests that give none; None draws a fresh one for each."""
    n_keep: Annotated[int, Field(ge=0, le=1_000_000)] = 2048
    """Accepted for compatibility and clamped to `n_ctx`: this daemon never shifts a context, so nothing is dropped."""
    cont_batching: Literal[True] = True
    """Accepted for compatibility: batching is always continuous."""

    def __post_init__(self) -> None:
        if self.kv_pool_tokens is not None and self.kv_pool_tokens < self.n_ctx:
            raise ValueError(
                f"kv_pool_tokens must be at least n_ctx ({self.n_ctx}), but is {self.kv_pool_tokens}"
            )


MAX_ENGINE_ID_CHARS = 256

EngineId = Annotated[
    str, Field(min_length=1, max_length=MAX_ENGINE_ID_CHARS, pattern=r"^[^\x00-\x1f\x7f/\\?#]+$")
]
"""A name for an engine. Appears in URL paths, so it holds no slash, `?`, `#` or control character."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine to be: what the registry keeps and the worker is told."""

    engine_id: EngineId
    model_path: str
    """An existing, regular `.gguf` file; made by `kolosal.paths` only."""
    parameters: LoadingParameters
