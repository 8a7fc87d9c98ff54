"""What there is to know about an engine, as the routes under `/engines` and `/health` answer it."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Literal

from pydantic import JsonValue
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.parameters import FlashAttention, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.engines.restart import BreakerState
from kolosal.engines.state import EngineState


class EngineStatus(TypedDict):
    """Whether an engine is loaded."""

    engine_id: str
    status: Literal["loaded", "unloaded"]


class EngineRow(EngineStatus):
    """An engine in a list."""

    last_accessed: str | None
    """UTC, to the second; null: never used."""


class DeviceBytes(TypedDict):
    """Bytes, by where they are."""

    host: int
    gpus: dict[str, int]


class EngineDetails(EngineRow):
    """Everything there is to know about an engine."""

    state: EngineState
    model_path: str
    loading_parameters: LoadingParameters
    """What the worker really got once the model was loaded, before that what was asked for."""
    main_gpu_id: int
    info: dict[str, JsonValue] | None
    """Facts about the model; null until it is loaded."""
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
    pin: bool
    idle_ttl_s: float
    """Seconds without a request after which it is unloaded; 0: never."""
    max_queued: int
    expires_in_s: float | None
    """Seconds until it is unloaded, unless it is used; null: not by the clock."""
    memory: DeviceBytes | None
    """What it holds, as estimated; null while it holds nothing."""


def is_loaded(engine: Engine) -> bool:
    """Whether an engine answers without loading first."""
    return engine.state is EngineState.READY


def engine_status(engine: Engine) -> EngineStatus:
    """The state in one of the two words that the contract has for it."""
    return {"engine_id": engine.engine_id, "status": "loaded" if is_loaded(engine) else "unloaded"}


def engine_row(engine: Engine) -> EngineRow:
    """An engine in a list."""
    return {**engine_status(engine), "last_accessed": _last_accessed(engine)}


def engine_details(registry: EngineRegistry, engine: Engine) -> EngineDetails:
    """All about one engine."""
    held = registry.load_scheduler.estimate_of(engine)
    now = time.monotonic()
    default_ttl_s = registry.load_scheduler.settings.idle_ttl_s
    return {
        **engine_status(engine),
        "state": engine.state,
        "model_path": engine.config.model_path,
        "loading_parameters": resolved_parameters(engine),
        "main_gpu_id": engine.config.parameters.main_gpu_id,
        "info": None if engine.info is None else asdict(engine.info),
        "load_progress": engine.load_progress,
        "last_error": engine.last_error,
        "recent_crashes": engine.breaker.deaths(now),
        "breaker": engine.breaker.state(now),
        "retry_after_s": engine.breaker.retry_after_s(now),
        "last_accessed": _last_accessed(engine),
        "in_flight": engine.in_flight,
        "worker_pid": engine.worker_pid,
        "pin": engine.rules.pin,
        "idle_ttl_s": default_ttl_s if engine.rules.idle_ttl_s is None else engine.rules.idle_ttl_s,
        "max_queued": engine.max_queued,
        "expires_in_s": registry.load_scheduler.expires_in_s(engine),
        "memory": None if held is None else device_bytes(held.need),
    }


def device_bytes(amount: Bytes) -> DeviceBytes:
    """An amount of memory, nowhere less than 0; JSON's keys are strings."""
    gpus = {str(index): max(0, n_bytes) for index, n_bytes in amount.gpus.items()}
    return {"host": max(0, amount.host), "gpus": gpus}


def resolved_parameters(engine: Engine) -> LoadingParameters:
    """What the worker really got once the model was loaded, before that what was asked for."""
    parameters, info = engine.config.parameters, engine.info
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
    return replace(parameters, n_keep=min(parameters.n_keep, parameters.n_ctx))


def _last_accessed(engine: Engine) -> str | None:
    used_at = engine.last_used_at
    return None if used_at is None else f"{datetime.fromtimestamp(used_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
