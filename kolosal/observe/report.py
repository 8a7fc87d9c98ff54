"""Counts as JSON, in the shape that clients of the first Kolosal server know. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kolosal import __version__
from kolosal.observe.counts import Counts, Outcome, ratio
from kolosal.observe.system import GpuUse, SystemUse

_SERVER = "kolosal-server"

_DESCRIPTIONS = {
    "tps": "Tokens in and out, for each second that requests took, waiting included",
    "output_tps": "Tokens out, for each second between the first token of a request and its end",
    "ttft": "Milliseconds until the first token of a request, waiting included",
    "rps": "Requests completed a second, since the first one",
}

_UNITS = ("B", "KB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine is at the moment, for reports of all kinds."""

    engine_id: str
    model_name: str
    state: str
    n_parallel: int
    """Generations that run at the same time at most; 0 while the model is not loaded."""
    load_progress: float
    kv_cells: int | None
    kv_pool_tokens: int


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def completion_report(
    engines: Iterable[EngineFacts], counts: Mapping[str, Counts], total: Counts, now: float
) -> dict[str, Any]:
    """`{"completion_metrics", "timestamp"}`. `now` is on the clock of the counts."""
    rows = [_engine(facts, counts.get(facts.engine_id) or Counts(), now) for facts in engines]
    return {
        "completion_metrics": {
            "summary": _summary(total, now),
            "per_engine_metrics": rows,
            "metadata": {
                "version": __version__,
                "server": _SERVER,
                "active_engines": len(rows),
                "metrics_descriptions": _DESCRIPTIONS,
            },
        },
        "timestamp": now_ms(),
    }


def _summary(counts: Counts, now: float) -> dict[str, Any]:
    return {
        "total_requests": counts.started,
        "completed_requests": counts.outcomes[Outcome.COMPLETED],
        "failed_requests": counts.outcomes[Outcome.FAILED],
        "cancelled_requests": counts.outcomes[Outcome.CANCELLED],
        "running_requests": counts.running,
        "success_rate_percent": _success(counts),
        "total_input_tokens": counts.prompt_tokens,
        "total_cached_tokens": counts.cached_tokens,
        "total_output_tokens": counts.output_tokens,
        "total_tokens": counts.tokens,
        "average_tps": ratio(counts.tokens, counts.duration.total),
        "average_output_tps": ratio(counts.output_tokens, counts.output_s),
        "average_ttft_ms": ratio(counts.ttft.total * 1000, counts.ttft.count),
        "average_rps": _rps(counts, now),
        "total_turnaround_time_ms": round(counts.duration.total * 1000, 1),
        "total_output_generation_time_ms": round(counts.output_s * 1000, 1),
    }


def _engine(facts: EngineFacts, counts: Counts, now: float) -> dict[str, Any]:
    return {
        "engine_id": facts.engine_id,
        "model_name": facts.model_name,
        "requests": {
            "total": counts.started,
            "completed": counts.outcomes[Outcome.COMPLETED],
            "failed": counts.outcomes[Outcome.FAILED],
            "cancelled": counts.outcomes[Outcome.CANCELLED],
            "running": counts.running,
            "success_rate_percent": _success(counts),
        },
        "tokens": {
            "input_total": counts.prompt_tokens,
            "cached_total": counts.cached_tokens,
            "output_total": counts.output_tokens,
            "total": counts.tokens,
            "average_input_per_request": ratio(counts.prompt_tokens, counts.started),
            "average_output_per_request": ratio(counts.output_tokens, counts.started),
        },
        "performance": {
            "tps": ratio(counts.tokens, counts.duration.total),
            "output_tps": ratio(counts.output_tokens, counts.output_s),
            "average_ttft_ms": ratio(counts.ttft.total * 1000, counts.ttft.count),
            "rps": _rps(counts, now),
            "average_turnaround_time_ms": ratio(counts.duration.total * 1000, counts.ended),
            "average_output_generation_time_ms": ratio(counts.output_s * 1000, counts.ended),
        },
        "last_updated": counts.updated_ms,
    }


def _success(counts: Counts) -> float:
    """Of the requests that ended, less those whose clients left. 0 while there were none."""
    completed = counts.outcomes[Outcome.COMPLETED]
    return round(100 * ratio(completed, completed + counts.outcomes[Outcome.FAILED]), 1)


def _rps(counts: Counts, now: float) -> float:
    return (
        0.0 if counts.first_at is None else ratio(counts.outcomes[Outcome.COMPLETED], now - counts.first_at)
    )


def system_report(use: SystemUse) -> dict[str, Any]:
    """The machine and our processes."""
    used = use.memory_total - use.memory_available
    memory_percent = round(100 * used / use.memory_total, 1) if use.memory_total else 0.0
    gpus = [_gpu(gpu) for gpu in use.gpus]
    return {
        "timestamp": now_ms(),
        "cpu": {"usage_percent": use.cpu_percent},
        "memory": {
            "total_bytes": use.memory_total,
            "used_bytes": used,
            "free_bytes": use.memory_available,
            "utilization_percent": memory_percent,
            "total_formatted": formatted(use.memory_total),
            "used_formatted": formatted(used),
            "free_formatted": formatted(use.memory_available),
        },
        "processes": {
            "daemon_bytes": use.daemon_bytes,
            "engines": [
                {"engine_id": engine_id, "memory_bytes": size} for engine_id, size in use.worker_bytes.items()
            ],
        },
        "gpus": gpus,
        "gpu_monitoring_available": use.gpu_driver,
        "summary": {
            "cpu_usage_percent": use.cpu_percent,
            "ram_utilization_percent": memory_percent,
            "gpu_count": len(gpus),
            "average_gpu_utilization_percent": _mean(gpu.gpu_percent for gpu in use.gpus),
            "average_vram_utilization_percent": _mean(map(_vram_percent, use.gpus)),
        },
        "metadata": {
            "version": "1.0",
            "server": _SERVER,
            "monitoring_capabilities": {"cpu": True, "memory": True, "gpu": use.gpu_driver},
        },
    }


def _gpu(gpu: GpuUse) -> dict[str, Any]:
    memory = None
    if gpu.total_bytes is not None and gpu.used_bytes is not None:
        free = gpu.total_bytes - gpu.used_bytes
        memory = {
            "total_bytes": gpu.total_bytes,
            "used_bytes": gpu.used_bytes,
            "free_bytes": free,
            "total_formatted": formatted(gpu.total_bytes),
            "used_formatted": formatted(gpu.used_bytes),
            "free_formatted": formatted(free),
        }
    return {
        "id": gpu.index,
        "name": gpu.name,
        "vendor": "NVIDIA",
        "utilization": {"gpu_percent": gpu.gpu_percent, "memory_percent": gpu.memory_percent},
        "memory": memory,
        "temperature_celsius": gpu.temperature_c,
        "power_usage_watts": gpu.power_w,
        "driver_version": gpu.driver,
    }


def _vram_percent(gpu: GpuUse) -> float | None:
    if not gpu.total_bytes or gpu.used_bytes is None:
        return None
    return 100 * gpu.used_bytes / gpu.total_bytes


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 1) if known else 0.0


def formatted(n_bytes: int) -> str:
    """`1.50 GB`, in steps of 1024."""
    size = float(n_bytes)
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} {_UNITS[-1]}"
