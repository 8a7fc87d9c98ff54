"""The bodies of the engine routes.

The original documents `n_ctx` and the like at the top level but reads them from `loading_parameters` only; here both
places count, and the top level wins. A name that no one knows is refused, because nothing is silently ignored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from starlette.requests import Request

from kolosal.backends.checks import needs_model
from kolosal.engines.memory.policy import DefaultMaxTokens, IdleTtlS, QueueLimit, Rules
from kolosal.engines.parameters import (
    LLAMACPP,
    BackendName,
    BackendOptions,
    EngineConfig,
    EngineId,
    LoadingParameters,
    NumGpus,
    Placement,
    ReplicasGiven,
    Strategy,
)
from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody, decode_fields
from kolosal.paths import checked_config
from kolosal.routes.common.services import model_roots_of

_loading_parameters: TypeAdapter[LoadingParameters] = TypeAdapter(LoadingParameters)


class EngineBody(RequestBody):
    """What a client may say. Every other top-level field is a loading parameter."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="allow")

    engine_id: EngineId | None = None
    model_id: EngineId | None = None
    """The name that later versions of the original have for `engine_id`."""
    model_path: Annotated[str, Field(max_length=4096)] | None = None
    """A `.gguf` file, or a folder that holds one; of another backend, what that loads."""
    backend: BackendName | None = None
    """What generates: `llamacpp` unless given, `transformers`, `echo`, or one that was added."""
    backend_options: BackendOptions | None = None
    """What another backend than llama.cpp is told besides."""
    load_immediately: bool | None = None
    """Not given: true. False: the engine is loaded at its first use."""
    loading_parameters: dict[str, Any] | None = None
    """Loading parameters, where they do not stand beside it; those that do win."""
    idle_ttl_s: IdleTtlS | None = None
    """Seconds without a request after which it is unloaded, until the next one. 0: never. Not given: as configured."""
    pin: bool | None = None
    """Never unload it, neither for its idleness nor to make room. Not given: false."""
    max_queued: QueueLimit | None = None
    """Requests that may wait beyond those that run. Not given: as configured."""
    default_max_tokens: DefaultMaxTokens | None = None
    """`max_tokens` of chat completions that give none; -1: to the end of the context window. Not given: as configured."""
    placement: Placement | None = None
    """Where its workers run: `local`, this machine, unless given; `ray`, the cluster that the daemon has joined."""
    replicas: ReplicasGiven | None = None
    """How many workers it has in a cluster: a number, or `min` and `max`. Not given: 1."""
    num_gpus: NumGpus | None = None
    """GPUs of each worker in a cluster. Not given: 0, and the model is in host memory."""
    strategy: Strategy | None = None
    """Which machines of a cluster its workers get: `SPREAD`, different ones, unless given; `PACK`, as few as possible."""
    model_type: str | None = None
    """Accepted for compatibility: the GGUF file says what it is."""
    inference_engine: str | None = None
    """Accepted for compatibility: there is one llama.cpp, the one this daemon was installed with."""

    @property
    def load(self) -> bool:
        return self.load_immediately is not False

    @property
    def name(self) -> str | None:
        """The engine's id, whichever field it came in."""
        return self.engine_id or self.model_id

    @property
    def rules(self) -> Rules:
        return Rules(
            idle_ttl_s=self.idle_ttl_s,
            pin=bool(self.pin),
            max_queued=self.max_queued,
            default_max_tokens=self.default_max_tokens,
            replicas=self.replicas,
        )

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the loading parameters that were given."""
        return tuple(_given(self.loading_parameters) | _given(self.model_extra))

    def required(self) -> tuple[str, str, LoadingParameters]:
        """Engine id, model path and all loading parameters.

        Raises:
            InvalidRequest: one is missing, or a loading parameter is unknown or not valid.
        """
        engine_id, needed = self.name, self.backend in (None, LLAMACPP) or needs_model(self.backend)
        if engine_id is None or (needed and not self.model_path):
            missing = "model_path" if engine_id is not None else "engine_id"
            names = "engine_id and model_path are" if needed else "engine_id is"
            raise InvalidRequest(f"Missing required fields: {names} required", param=missing)
        return engine_id, self.model_path or "", self.parameters()

    def parameters(self) -> LoadingParameters:
        """All loading parameters.

        Raises:
            InvalidRequest: one is unknown or not valid.
        """
        flat = _given(self.model_extra)
        nested = _given(self.loading_parameters)
        nested_parameters(self.loading_parameters)
        return decode_fields(_loading_parameters, {**nested, **flat})


def nested_parameters(fields: dict[str, Any] | None, within: str = "") -> LoadingParameters:
    """Loading parameters that stand in a field of their own; `within` is what that field stands in.

    Raises:
        InvalidRequest: one is unknown or not valid.
    """
    return decode_fields(_loading_parameters, _given(fields), prefix=f"{within}loading_parameters.")


async def config_of(request: Request, body: EngineBody) -> tuple[EngineConfig, str]:
    """The engine that a body asks for, and its path as it was given."""
    engine_id, model_path, parameters = body.required()
    config = await checked_config(
        engine_id,
        model_path,
        parameters,
        roots=model_roots_of(request),
        backend=body.backend or LLAMACPP,
        options=body.backend_options,
    )
    return replace(
        config,
        given=body.given,
        placement=body.placement or Placement.LOCAL,
        num_gpus=body.num_gpus or 0,
        strategy=body.strategy or Strategy.SPREAD,
    ), model_path


class RulesBody(RequestBody):
    """What of an engine can be changed while it goes on. What is left out stays as it is."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="forbid")

    pin: bool | None = None
    """Never unload it, neither for its idleness nor to make room."""
    idle_ttl_s: IdleTtlS | None = None
    """Seconds without a request after which it is unloaded, until the next one. 0: never."""
    max_queued: QueueLimit | None = None
    """Requests that may wait beyond those that run."""
    default_max_tokens: DefaultMaxTokens | None = None
    """`max_tokens` of chat completions that give none; -1: to the end of the context window."""
    replicas: ReplicasGiven | None = None
    """How many workers it has in a cluster: a number, or `min` and `max`."""

    def changed(self, rules: Rules) -> Rules:
        """The rules with what was given."""
        given = {name: value for name, value in self if value is not None}
        return replace(rules, **given)


class UnloadBody(RequestBody):
    """What a client may say when it unloads an engine."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="forbid")

    timeout_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None = None
    """Seconds that running requests get to finish. Not given: 30."""


def _given(fields: dict[str, Any] | None) -> dict[str, Any]:
    """Without the fields that are null, which is as good as leaving them out."""
    return {name: value for name, value in (fields or {}).items() if value is not None}
