"""The section `models:`: a list, of which each entry is an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import ConfigDict, Field

from kolosal.engines.memory.policy import DEFAULT_RULES, Rules
from kolosal.engines.parameters import EngineId, LoadingParameters

MAX_MODELS = 1000
"""Engines one configuration can name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """An engine the daemon adds when it starts."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    id: EngineId
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """Absolute; whether there is a model is found out when the engine is added."""
    load_immediately: bool = True
    """False: loaded at first use."""
    parameters: LoadingParameters = field(default_factory=LoadingParameters)
    rules: Rules = DEFAULT_RULES
