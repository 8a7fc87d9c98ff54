"""The bodies of the engine routes.

The original documents `n_ctx` and the like at the top level but reads them from `loading_parameters` only; here both
places count, and the top level wins. A name that no one knows is refused, because nothing is silently ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter

from kolosal.engines.memory.policy import IdleTtlS, QueueLimit, Rules
from kolosal.engines.parameters import EngineId, LoadingParameters
from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody, decode_fields

_loading_parameters: TypeAdapter[LoadingParameters] = TypeAdapter(LoadingParameters)


class EngineBody(RequestBody):
    """What a client may say. Every other top-level field is a loading parameter."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    engine_id: EngineId | None = None
    model_id: EngineId | None = None
    """The name that later versions of the original have for `engine_id`."""
    model_path: Annotated[str, Field(max_length=4096)] | None = None
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
        return Rules(idle_ttl_s=self.idle_ttl_s, pin=bool(self.pin), max_queued=self.max_queued)

    def required(self) -> tuple[str, str, LoadingParameters]:
        """Engine id, model path and all loading parameters.

        Raises:
            InvalidRequest: one is missing, or a loading parameter is unknown or not valid.
        """
        engine_id = self.name
        if engine_id is None or not self.model_path:
            missing = "model_path" if engine_id is not None else "engine_id"
            raise InvalidRequest(
                "Missing required fields: engine_id and model_path are required", param=missing
            )
        return engine_id, self.model_path, self.parameters()

    def parameters(self) -> LoadingParameters:
        """All loading parameters.

        Raises:
            InvalidRequest: one is unknown or not valid.
        """
        flat = _given(self.model_extra)
        nested = _given(self.loading_parameters)
        decode_fields(_loading_parameters, nested, prefix="loading_parameters.")
        return decode_fields(_loading_parameters, {**nested, **flat})


class UnloadBody(RequestBody):
    """What a client may say when it unloads an engine."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    timeout_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] | None = None
    """Seconds that running requests get to finish. Not given: 30."""


def _given(fields: dict[str, Any] | None) -> dict[str, Any]:
    """Without the fields that are null, which is as good as leaving them out."""
    return {name: value for name, value in (fields or {}).items() if value is not None}
