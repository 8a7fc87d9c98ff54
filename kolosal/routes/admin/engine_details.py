"""What there is to know about an engine, as the routes under `/engines` and `/health` answer it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Literal

from pydantic import JsonValue
from typing_extensions import TypedDict

from kolosal.cluster.view import ClusterView, EngineReplicas
from kolosal.engines.engine import Engine
from kolosal.engines.memory.fit import Choice
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.parameters import (
    AUTO,
    FlashAttention,
    LoadingParameters,
    Placement,
    ReplicaLimits,
    Strategy,
    other_than_default,
)
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.restart import BreakerState
from kolosal.engines.state import EngineState
from kolosal.observe.counts import Counts


class EngineStatus(TypedDict):
    """Whether an engine is loaded."""

    engine_id: str
    status: Literal["loaded", "unloaded"]


class EngineRow(EngineStatus):
    """An engine in a list."""

    backend: str
    """What generates: `llamacpp`, `transformers`, `echo`, or one that was added."""
    last_accessed: str | None
    """UTC, to the second; null: never used."""


class DeviceBytes(TypedDict):
    """Bytes, by where they are."""

    host: int
    gpus: dict[str, int]


class AskedEngine(TypedDict):
    """What an engine was added with: as a body of `PUT /engines/{engine_id}` it gives the same engine."""

    model_path: str
    backend: str
    backend_options: dict[str, JsonValue]
    loading_parameters: dict[str, JsonValue]
    """Those that were given."""
    pin: bool
    idle_ttl_s: float | None
    """null, as of the next two: as configured."""
    max_queued: int | None
    default_max_tokens: int | None
    placement: Placement
    replicas: int | ReplicaLimits | None
    num_gpus: int
    strategy: Strategy


class EngineDetails(EngineRow):
    """Everything there is to know about an engine."""

    state: EngineState
    model_path: str
    backend_options: dict[str, JsonValue]
    loading_parameters: LoadingParameters
    """What the worker really got once the model was loaded, before that what was asked for."""
    main_gpu_id: int | Literal["auto"]
    fit: Sequence[Choice]
    """What was chosen of what was left automatic, and why; empty until it is loaded."""
    info: dict[str, JsonValue] | None
    """Facts about the model; null until it is loaded."""
    asked: AskedEngine
    """What it was added with."""
    warnings: list[str]
    """What its owner should know, such as a window beyond what the model was trained for; empty until it is loaded."""
    load_progress: float | None
    """0 to 1 while it loads."""
    last_error: str | None
    recent_crashes: int
    breaker: BreakerState
    """Whether its process may be started again: open after too many crashes."""
    retry_after_s: float | None
    """Seconds until it may."""
    in_flight: int
    """Requests that run or wait."""
    worker_pid: int | None
    replicas: EngineReplicas | None
    """Its copies in the cluster; null where it is not placed there."""
    pin: bool
    idle_ttl_s: float
    """Seconds without a request after which it is unloaded; 0: never."""
    max_queued: int
    default_max_tokens: int | None
    """Its own; null: as configured."""
    expires_in_s: float | None
    """Seconds until it is unloaded, unless it is used; null: not by the clock."""
    memory: DeviceBytes | None
    """What it holds, as estimated; null while it holds nothing."""
    kv_cells: int | None
    """Cells of the KV cache in use, kept conversations included; null until it has generated."""
    requests: int
    """Generations since it was added."""
    prompt_tokens: int
    """Of all its prompts."""
    output_tokens: int
    """Of all its answers: what it is more by than a moment ago is how fast the engine is."""


def is_loaded(engine: Engine) -> bool:
    """Whether an engine answers without loading first."""
    return engine.state is EngineState.READY


def engine_status(engine: Engine) -> EngineStatus:
    """The state in one of the two words that the contract has for it."""
    return {"engine_id": engine.engine_id, "status": "loaded" if is_loaded(engine) else "unloaded"}


def engine_row(engine: Engine) -> EngineRow:
    """An engine in a list."""
    return {
        **engine_status(engine),
        "backend": engine.config.backend,
        "last_accessed": _last_accessed(engine),
    }


def engine_details(registry: EngineRegistry, engine: Engine, cluster: ClusterView | None) -> EngineDetails:
    """All about one engine."""
    held = engine.load_scheduler.estimate_of(engine)
    counts = registry.observer.engines.get(engine.engine_id) or Counts()
    now = time.monotonic()
    default_ttl_s = registry.load_scheduler.settings.idle_ttl_s
    return {
        **engine_row(engine),
        "state": engine.state,
        "model_path": engine.config.model_path,
        "backend_options": engine.config.backend_options,
        "loading_parameters": resolved_parameters(engine),
        "main_gpu_id": resolved_parameters(engine).main_gpu_id,
        "fit": engine_fit(engine),
        "info": None if engine.info is None else asdict(engine.info),
        "asked": _asked(engine),
        "warnings": engine_warnings(engine),
        "load_progress": engine.load_progress,
        "last_error": engine.last_error,
        "recent_crashes": engine.breaker.deaths(now),
        "breaker": engine.breaker.state(now),
        "retry_after_s": engine.breaker.retry_after_s(now),
        "in_flight": engine.in_flight,
        "worker_pid": engine.worker_pid,
        "replicas": None if cluster is None else cluster.engine(engine.engine_id),
        "pin": engine.rules.pin,
        "idle_ttl_s": default_ttl_s if engine.rules.idle_ttl_s is None else engine.rules.idle_ttl_s,
        "max_queued": engine.max_queued,
        "default_max_tokens": engine.rules.default_max_tokens,
        "expires_in_s": engine.load_scheduler.expires_in_s(engine),
        "memory": None if held is None else device_bytes(held.need),
        "kv_cells": engine.kv_cells,
        "requests": counts.started,
        "prompt_tokens": counts.prompt_tokens,
        "output_tokens": counts.output_tokens,
    }


def _asked(engine: Engine) -> AskedEngine:
    asked, rules = engine.asked, engine.rules
    given = {*asked.given, *other_than_default(asked.parameters)}
    parameters = asdict(asked.parameters)
    return {
        "model_path": asked.model_path,
        "backend": asked.backend,
        "backend_options": asked.backend_options,
        "loading_parameters": {name: value for name, value in parameters.items() if name in given},
        "pin": rules.pin,
        "idle_ttl_s": rules.idle_ttl_s,
        "max_queued": rules.max_queued,
        "default_max_tokens": rules.default_max_tokens,
        "placement": asked.placement,
        "replicas": rules.replicas,
        "num_gpus": asked.num_gpus,
        "strategy": asked.strategy,
    }


def engine_warnings(engine: Engine) -> list[str]:
    """What the owner of an engine should know of it; nothing until it is loaded."""
    return [] if engine.info is None else engine.info.warnings


def engine_fit(engine: Engine) -> Sequence[Choice]:
    """What was chosen for an engine when it was loaded last."""
    return () if engine.plan is None else engine.plan.choices


def device_bytes(amount: Bytes) -> DeviceBytes:
    """An amount of memory, nowhere less than 0; JSON's keys are strings."""
    gpus = {str(index): max(0, n_bytes) for index, n_bytes in amount.gpus.items()}
    return {"host": max(0, amount.host), "gpus": gpus}


def resolved_parameters(engine: Engine) -> LoadingParameters:
    """What the worker really got once the model was loaded, before that what was asked for."""
    parameters, info = engine.config.parameters, engine.info
    if engine.plan is not None:
        parameters = engine.plan.parameters
    if info is not None:
        parameters = replace(
            parameters,
            n_ctx=info.n_ctx,
            n_gpu_layers=info.n_gpu_layers,
            n_parallel=info.n_parallel,
            kv_pool_tokens=info.kv_pool_tokens,
            n_batch=info.n_batch,
            n_ubatch=info.n_ubatch,
            n_threads=info.n_threads,
            n_threads_batch=info.n_threads_batch,
            flash_attn=FlashAttention(info.flash_attn),
        )
    if parameters.n_ctx == AUTO:
        return parameters
    return replace(parameters, n_keep=min(parameters.n_keep, parameters.n_ctx))


def _last_accessed(engine: Engine) -> str | None:
    used_at = engine.last_used_at
    return None if used_at is None else f"{datetime.fromtimestamp(used_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
