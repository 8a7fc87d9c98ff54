"""Metrics: counts of requests and tokens, and what the machine uses. Reading them loads no engine and resets no timer."""

from __future__ import annotations

from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.http.responses import JsonResponse
from kolosal.observe.events import now_ms
from kolosal.observe.report import CompletionMetrics, EngineFacts, completion_report
from kolosal.observe.system import SystemUse
from kolosal.observe.system_report import SystemMetrics, system_report
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of, services_of

_TEXT_TYPES = ("text/plain", "application/openmetrics-text")


class AllMetrics(TypedDict):
    """Everything."""

    system_metrics: SystemMetrics
    completion_metrics: CompletionMetrics
    """As `/metrics/completion` gives it, so that the name is there twice."""
    timestamp: int
    """Unix time in milliseconds."""


def routes() -> list[Route]:
    """The paths of this module."""
    return [
        Route("/metrics", show_metrics),
        Route("/v1/metrics", show_metrics),
        Route("/metrics/prometheus", show_prometheus),
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
    facts = [_facts(engine) for engine in registry.list()]
    n_requests = services_of(request).admission.total
    accept = request.headers.get("accept", "")
    text, content_type = prometheus_text(accept, registry.observer, facts, use, n_requests)
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


async def _use(request: Request) -> SystemUse:
    pids = {engine.engine_id: engine.worker_pid for engine in registry_of(request).list()}
    return await services_of(request).system.sample(
        {name: pid for name, pid in pids.items() if pid is not None}
    )


def _completion(request: Request) -> CompletionMetrics:
    registry = registry_of(request)
    observer = registry.observer
    facts = [_facts(engine) for engine in registry.list()]
    return completion_report(facts, observer.engines, observer.total, observer.clock())


def _facts(engine: Engine) -> EngineFacts:
    info = engine.info
    return EngineFacts(
        engine_id=engine.engine_id,
        model_name=PurePath(engine.config.model_path.replace("\\", "/")).stem,
        state=engine.state,
        n_parallel=0 if info is None else info.n_parallel,
        load_progress=engine.load_progress,
        kv_cells=engine.kv_cells,
        kv_pool_tokens=0 if info is None else info.kv_pool_tokens,
    )
