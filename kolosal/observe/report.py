"""Counts of requests and tokens as JSON, in the shape that clients of the first Kolosal server know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from typing_extensions import TypedDict

from kolosal import __version__
from kolosal.observe.counts import Counts, Outcome, ratio
from kolosal.observe.events import now_ms

SERVER_NAME = "kolosal-server"
"""What the first server called itself in its metrics."""


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
    saved_bytes: int = 0
    """Host memory of conversations that have no cells at the moment."""
    saved_disk_bytes: int = 0
    """Their files."""
    restores: int = 0
    restored_tokens: int = 0
    restores_saved_s: float = 0.0
    replicas: Mapping[str, int] = field(default_factory=dict)
    """Its copies in a cluster, by their state."""


@dataclass(frozen=True, slots=True)
class Saving:
    """How it goes with writing the engines to the disk that are to come back after a restart."""

    failures: int = 0
    is_saved: bool = True


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """One quota of one key, for metrics."""

    key: str
    kind: str
    """`requests` or `tokens`."""
    window: str
    """`minute` or `day`."""
    used: int
    limit: int


class CompletionSummary(TypedDict):
    """All engines since the start, also those that were removed."""

    total_requests: int
    completed_requests: int
    failed_requests: int
    cancelled_requests: int
    """Their clients left."""
    running_requests: int
    """They run or wait."""
    success_rate_percent: float
    """Completed, of those that completed or failed."""
    total_input_tokens: int
    total_cached_tokens: int
    """Input tokens that were found in the KV cache."""
    total_output_tokens: int
    total_tokens: int
    average_tps: float
    average_output_tps: float
    average_ttft_ms: float
    average_rps: float
    total_turnaround_time_ms: float
    total_output_generation_time_ms: float


class EngineRequests(TypedDict):
    """An engine's generations."""

    total: int
    completed: int
    failed: int
    cancelled: int
    running: int
    success_rate_percent: float


class EngineTokens(TypedDict):
    """An engine's tokens."""

    input_total: int
    cached_total: int
    output_total: int
    total: int
    average_input_per_request: float
    average_output_per_request: float


class EnginePerformance(TypedDict):
    """An engine's speed; `metrics_descriptions` says what the words mean."""

    tps: float
    output_tps: float
    average_ttft_ms: float
    rps: float
    average_turnaround_time_ms: float
    average_output_generation_time_ms: float


class EngineMetrics(TypedDict):
    """One engine since it was added."""

    engine_id: str
    model_name: str
    """The model's file, without folder and ending."""
    requests: EngineRequests
    tokens: EngineTokens
    performance: EnginePerformance
    last_updated: int | None
    """Unix time in milliseconds of the last end of a request."""


class MetricDescriptions(TypedDict):
    """What `tps`, `output_tps`, `ttft` and `rps` mean."""

    tps: str
    output_tps: str
    ttft: str
    rps: str


class CompletionMetadata(TypedDict):
    """The daemon that counted."""

    version: str
    server: str
    active_engines: int
    metrics_descriptions: MetricDescriptions


class CompletionReport(TypedDict):
    """Counts of requests and tokens."""

    summary: CompletionSummary
    per_engine_metrics: list[EngineMetrics]
    metadata: CompletionMetadata


class CompletionMetrics(TypedDict):
    """Counts, and when they were taken."""

    completion_metrics: CompletionReport
    timestamp: int
    """Unix time in milliseconds."""


_DESCRIPTIONS: MetricDescriptions = {
    "tps": "Tokens in and out, for each second that requests took, waiting included",
    "output_tps": "Tokens out, for each second between the first token of a request and its end",
    "ttft": "Milliseconds until the first token of a request, waiting included",
    "rps": "Requests completed a second, since the first one",
}


def completion_report(
    engines: Iterable[EngineFacts], counts: Mapping[str, Counts], total: Counts, now: float
) -> CompletionMetrics:
    """All counts. `now` is on the clock of the counts."""
    rows = [_engine(facts, counts.get(facts.engine_id) or Counts(), now) for facts in engines]
    return {
        "completion_metrics": {
            "summary": _summary(total, now),
            "per_engine_metrics": rows,
            "metadata": {
                "version": __version__,
                "server": SERVER_NAME,
                "active_engines": len(rows),
                "metrics_descriptions": _DESCRIPTIONS,
            },
        },
        "timestamp": now_ms(),
    }


def _summary(counts: Counts, now: float) -> CompletionSummary:
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


def _engine(facts: EngineFacts, counts: Counts, now: float) -> EngineMetrics:
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
