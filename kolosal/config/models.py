"""The section `models:`: a list, of which each entry is an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import ConfigDict, Field

from kolosal.engines.memory.policy import DEFAULT_RULES, Rules
from kolosal.engines.parameters import (
    LLAMACPP,
    BackendName,
    BackendOptions,
    EngineId,
    LoadingParameters,
    NumGpus,
    Placement,
    Strategy,
)

MAX_MODELS = 1000
"""Engines one configuration can name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """An engine the daemon adds when it starts."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: EngineId
    path: Annotated[str, Field(max_length=4096)] = ""
    """Absolute; whether there is a model is found out when the engine is added. Empty where its backend needs none."""
    load_immediately: bool = True
    """False: loaded at first use."""
    parameters: LoadingParameters = field(default_factory=LoadingParameters)
    rules: Rules = DEFAULT_RULES
    backend: BackendName = LLAMACPP
    backend_options: BackendOptions = field(default_factory=dict)
    placement: Placement = Placement.LOCAL
    """`ray`: its workers run in the cluster."""
    num_gpus: NumGpus = 0
    strategy: Strategy = Strategy.SPREAD
