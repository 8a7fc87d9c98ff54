"""What an engine is made of: its name, its backend, its model and the loading parameters.

The one definition of these fields, their defaults and bounds: the HTTP body of `POST /engines`, the `models` section of
the configuration file and the worker's handshake all use it. Bounds come from the seed contract where it gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag

from kolosal.sampling import MAX_TOKENS_LIMIT, Seed

MAX_PARALLEL = 256
"""llama.cpp's own limit of sequences in one context (LLAMA_MAX_SEQ)."""

AUTO: Literal["auto"] = "auto"
"""In place of a number: chosen when the model is loaded, by what there is memory for (`engines/memory/fit.py`)."""

LEAST_AUTO_CTX = 4096
"""Tokens that an automatic context has at least, where the model was trained for as many."""


def _number_or_auto(value: object) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "<auto>" if value == AUTO else "<number>" if is_number else None


def _switch_or_auto(value: object) -> str | None:
    return "<auto>" if value == AUTO else "<boolean>" if isinstance(value, bool) else None


_OrAuto = Discriminator(
    _number_or_auto, custom_error_type="union", custom_error_message="an integer or 'auto'"
)

_SwitchOrAuto = Discriminator(
    _switch_or_auto, custom_error_type="union", custom_error_message="true, false or 'auto'"
)

_NCtx: TypeAlias = Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)]
_NLayers: TypeAlias = Annotated[int, Field(ge=-1, le=1000)]
_GpuIndex: TypeAlias = Annotated[int, Field(ge=-1, le=15)]
_NExpertLayers: TypeAlias = Annotated[int, Field(ge=0, le=1000)]
_Switch: TypeAlias = Annotated[bool, Tag("<boolean>")]
_NBytes: TypeAlias = Annotated[int, Field(ge=0, le=1 << 50)]
_Auto: TypeAlias = Annotated[Literal["auto"], Tag("<auto>")]

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

    n_ctx: Annotated[Annotated[_NCtx, Tag("<number>")] | _Auto, _OrAuto] = 4096
    """Tokens one request may use, prompt and answer together; 0 takes as many as the model was trained for, `auto` as many of those
    as memory allows, at least 4096."""
    n_gpu_layers: Annotated[Annotated[_NLayers, Tag("<number>")] | _Auto, _OrAuto] = AUTO
    """Layers kept in GPU memory; -1 is all, 0 none, `auto` as many as fit. Without a GPU it has no effect."""
    n_cpu_moe: Annotated[Annotated[_NExpertLayers, Tag("<number>")] | _Auto, _OrAuto] = AUTO
    """Layers, from the first, whose experts stay in host memory; `auto`: as few as make the rest fit, before whole layers stay there."""
    main_gpu_id: Annotated[Annotated[_GpuIndex, Tag("<number>")] | _Auto, _OrAuto] = 0
    """The GPU that holds the model when it is not split; -1 lets llama.cpp choose, `auto` takes the one with the most free memory."""
    split_mode: SplitMode = SplitMode.LAYER
    tensor_split: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)], ...], Field(max_length=16)
    ] = ()
    """Shares of the model per GPU, in any unit; empty: one GPU where that holds the model, else as many layers on each as it has room
    for."""
    override_tensor: Annotated[str, Field(max_length=4096)] = ""
    """Where tensors are kept whose names match: `PATTERN=BUFFER`, several with commas between, such as `ffn_.*_exps=CPU`."""
    n_parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 4
    """Requests generated at the same time; more wait in a queue."""
    kv_pool_tokens: Annotated[int, Field(ge=1, le=256_000_000)] | None = None
    """Cells of the KV cache all requests share. None: `n_ctx * n_parallel`, less where memory is short; with an automatic `n_ctx` as
    many as that, at least 4096 for each request."""
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
    swa_full: Annotated[_Switch | _Auto, _SwitchOrAuto] = AUTO
    """Whether layers with a sliding window keep all cells, so that any prefix can be shared; `auto`: where that fits. Else they keep
    what their window sees, which takes less memory. Without such layers it has no effect."""
    flash_attn: FlashAttention = FlashAttention.AUTO
    use_mmap: bool = True
    use_mlock: bool = False
    """Keep the weights from being swapped out; needs the right to lock memory."""
    warmup: bool = False
    """Accepted for compatibility: a token is always computed after loading, and what it shows ends the load."""
    chat_template: Annotated[str, Field(min_length=1, max_length=262_144)] | None = None
    """A Jinja chat template to use instead of the model's own."""
    enable_thinking: bool = True
    """Whether a model that can think before it answers does, where a request does not say; told to its chat template."""
    keep_client_metadata: bool = False
    """Keep what clients write of themselves into the prompt and change with every request: the line
    `x-anthropic-billing-header` of Claude Code. It would keep requests from sharing KV cells."""
    cache_prompt: bool = True
    """Share the KV cells of common prefixes between requests, and keep those of finished ones while there is room."""
    cache_host_bytes: Annotated[Annotated[_NBytes, Tag("<number>")] | _Auto, _OrAuto] = AUTO
    """Bytes of host memory for the KV cells of conversations that had to make room for others, until they come back; 0: they are computed
    again. `auto`: an eighth of the memory that is left, at most 8 GiB."""
    speculation: bool = True
    """Guess tokens by prompt lookup and compute guesses along; the text stays the same."""
    draft_model_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A small model of the same vocabulary that guesses tokens where prompt lookup has no guess."""
    target_step_ms: Annotated[int, Field(ge=5, le=10_000)] = 200
    """While streams run, a step of theirs is due when so much time has passed since the last: prompts are read in pieces that keep a
    step near this duration, long ones between their layers."""
    seed: Seed | None = None
    """Seed of requests that give none, taken modulo 2^32; None and -1 draw a fresh one for each."""
    n_keep: Annotated[int, Field(ge=0, le=1_000_000)] = 2048
    """Accepted for compatibility and clamped to `n_ctx`: this daemon never shifts a context, so nothing is dropped."""
    cont_batching: Literal[True] = True
    """Accepted for compatibility: batching is always continuous."""

    @property
    def least_n_ctx(self) -> int:
        """Tokens that one request may use at least: an automatic context is known once the model is loaded."""
        return LEAST_AUTO_CTX if self.n_ctx == AUTO or self.n_ctx == 0 else self.n_ctx

    def __post_init__(self) -> None:
        if self.kv_pool_tokens is not None and self.n_ctx != AUTO and self.kv_pool_tokens < self.n_ctx:
            raise ValueError(
                f"kv_pool_tokens must be at least n_ctx ({self.n_ctx}), but is {self.kv_pool_tokens}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedParameters(LoadingParameters):
    """Loading parameters of which nothing is left to choose: what a worker is told."""

    n_ctx: _NCtx = 4096
    n_gpu_layers: _NLayers = -1
    n_cpu_moe: _NExpertLayers = 0
    main_gpu_id: _GpuIndex = 0
    swa_full: bool = True
    cache_host_bytes: _NBytes = 0

    @classmethod
    def of(cls, parameters: LoadingParameters, **chosen: Any) -> FittedParameters:
        """The parameters with what was chosen; what is left automatic is as if no memory were short."""
        values: dict[str, Any] = {each.name: getattr(parameters, each.name) for each in fields(parameters)}
        open_ones = {
            "n_ctx": LEAST_AUTO_CTX,
            "n_gpu_layers": -1,
            "n_cpu_moe": 0,
            "main_gpu_id": 0,
            "swa_full": True,
            "cache_host_bytes": 0,
        }
        values |= {name: value for name, value in open_ones.items() if values[name] == AUTO}
        return cls(**values | chosen)


MAX_ENGINE_ID_CHARS = 256

LATEST = ":latest"
"""The tag of a name that is as good as none: Ollama's, whose users write it everywhere."""

_LETTER, _NO_DOT = r"[^\x00-\x1f\x7f/\\?#]", r"[^\x00-\x1f\x7f/\\?#.]"
_PART = rf"({_NO_DOT}{_LETTER}*|\.{_NO_DOT}{_LETTER}*|\.\.{_LETTER}+)"

EngineId = Annotated[
    str, Field(min_length=1, max_length=MAX_ENGINE_ID_CHARS, pattern=rf"^{_PART}(/{_PART})*$")
]
"""A name for an engine, such as `tiny` or `org/tiny`. Appears in URL paths, so it holds no `?`, `#`, backslash or control character,
and no part of it is empty, `.` or `..`."""


LLAMACPP = "llamacpp"
"""The backend of engines that name none."""

MAX_BACKEND_CHARS = 64

MAX_BACKEND_OPTIONS = 64

BackendName = Annotated[str, Field(min_length=1, max_length=MAX_BACKEND_CHARS)]
"""What generates for an engine; `kolosal.backends` knows which there are."""

BackendOptions = Annotated[dict[str, JsonValue], Field(max_length=MAX_BACKEND_OPTIONS)]
"""What a backend other than llama.cpp is told besides; each has options of its own."""


class Placement(StrEnum):
    """Where an engine's workers run."""

    LOCAL = "local"
    """On this machine."""
    RAY = "ray"
    """On machines of the Ray cluster that the daemon has joined."""


class Strategy(StrEnum):
    """Which machines Ray chooses for the replicas of an engine, among those that have room."""

    SPREAD = "SPREAD"
    """Different ones, as far as possible."""
    PACK = "PACK"
    """As few as possible."""


MAX_REPLICAS = 1024
"""Of one engine."""

MAX_GPUS = 16
"""That one worker uses."""

NumGpus = Annotated[int, Field(ge=0, le=MAX_GPUS)]


_Copies: TypeAlias = Annotated[int, Field(ge=1, le=MAX_REPLICAS, strict=True)]


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many workers an engine has in a cluster."""

    min: int = 1
    """At least."""
    max: int = 1
    """At most, where requests wait."""


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """The same as users write it.

    Raises:
        ValueError: less at most than at least.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    min: _Copies | None = None
    """At least; None: 1."""
    max: _Copies | None = None
    """At most; None: as many as at least."""

    def __post_init__(self) -> None:
        if self.max is not None and self.max < (self.min or 1):
            raise ValueError(f"max is {self.max}, which is less than min, {self.min or 1}")


def _number_or_object(value: object) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "<number>" if is_number else "<object>" if isinstance(value, Mapping | ReplicaLimits) else None


ReplicasGiven: TypeAlias = Annotated[
    Annotated[_Copies, Tag("<number>")] | Annotated[ReplicaLimits, Tag("<object>")],
    Discriminator(
        _number_or_object, custom_error_type="union", custom_error_message="an integer or an object"
    ),
]
"""A number is as many at least as at most."""


def replicas_of(given: ReplicaLimits | int | None) -> Replicas:
    """What a user wants; one where that is not said."""
    if isinstance(given, ReplicaLimits):
        return Replicas(given.min or 1, given.max or given.min or 1)
    return Replicas(given or 1, given or 1)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine to be: what the registry keeps and the worker is told."""

    engine_id: EngineId
    model_path: str
    """An existing, regular `.gguf` file, or what its backend loads from instead; made by `kolosal.paths` only."""
    parameters: LoadingParameters
    backend: BackendName = LLAMACPP
    backend_options: BackendOptions = field(default_factory=dict)
    given: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)] = ()
    """Names of the parameters that whoever added it gave: what else is said of a model holds for the others only."""
    placement: Placement = Placement.LOCAL
    """Where its workers run."""
    num_gpus: NumGpus = 0
    """GPUs that each worker gets in a cluster; on this machine it sees all."""
    strategy: Strategy = Strategy.SPREAD
    """Which machines of a cluster its workers get."""


@dataclass(frozen=True, slots=True)
class FittedConfig(EngineConfig):
    """The same with nothing left to choose."""

    parameters: FittedParameters


class KnownModels(Protocol):
    """What is known of models besides the engines that there are."""

    @property
    def names(self) -> Mapping[str, str]:
        """All names for engines, by the plain form of each."""
        ...

    def engine_id_of(self, name: str) -> str:
        """The engine that a name means, which may be an alias; the name itself where it is none."""
        ...

    def config_of(self, config: EngineConfig) -> EngineConfig:
        """An engine as it is to be loaded."""
        ...

    def root_of(self, engine_id: str) -> str | None:
        """The engine whose file one that need not be added has; None where it must be."""
        ...

    def exclusive_groups_of(self, engine_id: str) -> frozenset[str]:
        """Groups of engines of which no two are in memory together."""
        ...


class NothingKnown:
    """For machines of whose models nothing is said."""

    names: Mapping[str, str] = MappingProxyType({})

    def engine_id_of(self, name: str) -> str:
        return name

    def config_of(self, config: EngineConfig) -> EngineConfig:
        return config

    def root_of(self, engine_id: str) -> str | None:
        del engine_id
        return None

    def exclusive_groups_of(self, engine_id: str) -> frozenset[str]:
        del engine_id
        return frozenset()


def other_than_default(parameters: LoadingParameters) -> tuple[str, ...]:
    """Names of the parameters that are not left at their defaults: those that a configuration gives."""
    default = LoadingParameters()
    names = (each.name for each in fields(parameters))
    return tuple(name for name in names if getattr(parameters, name) != getattr(default, name))
