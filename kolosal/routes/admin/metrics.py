"""Metrics: counts of requests and tokens, and what the machine uses. Reading them loads no engine and resets no timer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.cluster.view import ClusterView, NodeState, ReplicaState
from kolosal.engines.engine import Engine
from kolosal.engines.registry import EngineRegistry
from kolosal.http.responses import JsonResponse
from kolosal.observe.events import now_ms
from kolosal.observe.history import COLUMNS, INTERVAL_S
from kolosal.observe.report import CompletionMetrics, EngineFacts, Saving, completion_report
from kolosal.observe.system import SystemUse
from kolosal.observe.system_report import SystemMetrics, system_report
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import cluster_of, registry_of, services_of

_TEXT_TYPES = ("text/plain", "application/openmetrics-text")


class AllMetrics(TypedDict):
    """Everything."""

    system_metrics: SystemMetrics
    completion_metrics: CompletionMetrics
    """As `/metrics/completion` gives it, so that the name is there twice."""
    timestamp: int
    """Unix time in milliseconds."""


class HistoryQuery(BaseModel):
    """Which rows."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    after: Annotated[int, Field(ge=0, le=2**53)] = 0
    """The `time` of the last row the client has."""


class MetricsHistory(TypedDict):
    """What the daemon did lately."""

    interval_ms: int
    columns: Sequence[str]
    """The names of a row's values."""
    rows: Sequence[Sequence[float | None]]


def routes() -> list[Route]:
    """The paths of this module."""
    return [
        Route("/metrics", show_metrics),
        Route("/v1/metrics", show_metrics),
        Route("/metrics/prometheus", show_prometheus),
        Route("/v1/metrics/history", show_history),
        Route("/metrics/system", show_system),
        Route("/v1/metrics/system", show_system),
        Route("/system/metrics", show_system),
        Route("/metrics/completion", show_completion),
        Route("/v1/metrics/completion", show_completion),
        Route("/completion-metrics", show_completion),
    ]


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    answer="System and completion metrics; as Prometheus text where `Accept` asks for text and not for JSON.",
)
async def show_metrics(request: Request) -> JsonResponse[AllMetrics] | PlainTextResponse:
    """All metrics. A Prometheus server that scrapes this path gets its own format."""
    accept = request.headers.get("accept", "").lower()
    if any(kind in accept for kind in _TEXT_TYPES) and "application/json" not in accept:
        return await show_prometheus(request)
    return JsonResponse(
        {
            "system_metrics": system_report(await _use(request)),
            "completion_metrics": _completion(request),
            "timestamp": now_ms(),
        }
    )


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    answer="Prometheus text, or OpenMetrics where `Accept` asks for that.",
    media_type="text/plain",
)
async def show_prometheus(request: Request) -> PlainTextResponse:
    """All metrics, for Prometheus."""
    from kolosal.observe.prometheus import prometheus_text  # noqa: PLC0415 - an eighth of the daemon's start

    registry = registry_of(request)
    use = await _use(request)
    cluster = cluster_of(request)
    facts = [_facts(engine, cluster) for engine in registry.list()]
    nodes = {} if cluster is None else _by_state(NodeState, (node.state for node in cluster.nodes))
    n_requests = services_of(request).admission.total
    accept = request.headers.get("accept", "")
    saving = _saving(registry)
    services = services_of(request)
    quotas = services.quotas.use(services.authenticator.keys)
    text, content_type = prometheus_text(
        accept, registry.observer, facts, use, n_requests, saving, quotas, nodes
    )
    return PlainTextResponse(text, headers={"content-type": content_type})


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    answer="Use of processor, memory and GPUs, up to a second old.",
)
async def show_system(request: Request) -> JsonResponse[SystemMetrics]:
    """What the machine uses."""
    return JsonResponse(system_report(await _use(request)))


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    answer="Counts of requests and tokens since the start, altogether and by engine.",
)
async def show_completion(request: Request) -> JsonResponse[CompletionMetrics]:
    """How many requests and tokens, and how fast."""
    return JsonResponse(_completion(request))


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    query=HistoryQuery,
    answer="A row for every two seconds, the oldest first; null where nothing was measured.",
)
async def show_history(request: Request) -> JsonResponse[MetricsHistory]:
    """The last quarter of an hour, for charts."""
    query = read_query(request, HistoryQuery)
    await _use(request)  # from now on GPUs are looked at, too
    rows = services_of(request).history.after(query.after)
    return JsonResponse({"interval_ms": round(INTERVAL_S * 1000), "columns": COLUMNS, "rows": rows})


async def _use(request: Request) -> SystemUse:
    return await services_of(request).system_use()


def _saving(registry: EngineRegistry) -> Saving:
    file = registry.engine_file
    return Saving() if file is None else Saving(file.failures, is_saved=file.is_saved)


def _completion(request: Request) -> CompletionMetrics:
    registry = registry_of(request)
    observer = registry.observer
    facts = [_facts(engine, None) for engine in registry.list()]
    return completion_report(facts, observer.engines, observer.total, observer.clock())


def _facts(engine: Engine, cluster: ClusterView | None) -> EngineFacts:
    info = engine.info
    placed = None if cluster is None else cluster.engine(engine.engine_id)
    return EngineFacts(
        engine_id=engine.engine_id,
        model_name=PurePath(engine.config.model_path.replace("\\", "/")).stem,
        state=engine.state,
        n_parallel=0 if info is None else info.n_parallel,
        load_progress=engine.load_progress,
        kv_cells=engine.kv_cells,
        kv_pool_tokens=0 if info is None else info.kv_pool_tokens,
        saved_bytes=engine.saved.host_bytes,
        saved_disk_bytes=engine.saved.disk_bytes,
        restores=engine.saved.restores,
        restored_tokens=engine.saved.tokens,
        restores_saved_s=engine.saved.seconds,
        replicas={} if placed is None else _by_state(ReplicaState, (each.state for each in placed.replicas)),
    )


def _by_state(states: type[StrEnum], found: Iterable[StrEnum]) -> dict[str, int]:
    """How many there are of each state, also where that is none."""
    counts = Counter(found)
    return {state.value: counts[state] for state in states}
