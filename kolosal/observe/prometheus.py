"""Counts as Prometheus text. Pure, but for the library that writes the format.

Metrics that mean the same as llama-server's have its names (`llamacpp:…`), so that its dashboards work; each has the label
`engine`. Ours begin with `kolosal_`. Labels come from bounded sets: engines, states, outcomes, codes of errors, statuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from kolosal.observe.counts import Counts, Histogram
from kolosal.observe.nvml import GpuFacts
from kolosal.observe.observer import Observer
from kolosal.observe.report import EngineFacts, QuotaUse, Saving
from kolosal.observe.system import SystemUse

_STATES = ("unloaded", "loading", "ready", "unloading", "closed")
"""States that every engine has a row for; another one it is in gets a row too."""


def prometheus_text(
    accept: str,
    observer: Observer,
    engines: Sequence[EngineFacts],
    use: SystemUse,
    n_waiting: int,
    saving: Saving,
    quotas: Iterable[QuotaUse] = (),
    nodes: Mapping[str, int] | None = None,
) -> tuple[bytes, str]:
    """The text and its content type: OpenMetrics where `accept` wants that, else the classic format.

    `nodes` are those of a cluster by their state, where there is one.
    """
    encode, content_type = choose_encoder(accept)
    families = [
        *_families(observer, engines, use, n_waiting),
        *_state(saving),
        *_quotas(quotas),
        *_cluster(engines, nodes or {}),
    ]
    return encode(_Families(families)), content_type


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(
    observer: Observer, engines: Sequence[EngineFacts], use: SystemUse, n_waiting: int
) -> Iterator[Metric]:
    rows = [(facts, observer.engines.get(facts.engine_id) or Counts()) for facts in engines]
    yield from _like_llama_server(rows)
    yield from _requests(rows)
    yield from _saved(engines)
    yield from _states(rows)
    answers = CounterMetricFamily("kolosal_http_requests", "HTTP requests by status.", labels=["status"])
    for status, count in sorted(observer.http.items()):
        answers.add_metric([str(status)], count)
    yield answers
    yield GaugeMetricFamily(
        "kolosal_inference_requests", "HTTP requests that load, wait or generate now.", value=n_waiting
    )
    yield from _machine(use)


def _state(saving: Saving) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "kolosal_state_write_failures", "Tries to save the engines that failed.", value=saving.failures
    )
    yield GaugeMetricFamily(
        "kolosal_state_saved", "1 where all engines that come back are on the disk.", value=saving.is_saved
    )


def _quotas(quotas: Iterable[QuotaUse]) -> Iterator[Metric]:
    labels = ["key", "kind", "window"]
    used = GaugeMetricFamily(
        "kolosal_quota_used", "Requests or tokens of an API key in this minute or day.", labels=labels
    )
    limit = GaugeMetricFamily("kolosal_quota_limit", "How many it may use.", labels=labels)
    for quota in quotas:
        row = [quota.key, quota.kind, quota.window]
        used.add_metric(row, quota.used)
        limit.add_metric(row, quota.limit)
    yield from (used, limit)


def _cluster(engines: Iterable[EngineFacts], nodes: Mapping[str, int]) -> Iterator[Metric]:
    replicas = _gauge("kolosal_engine_replicas", "Copies of an engine in the cluster, by state.", "state")
    for engine in engines:
        for state, count in engine.replicas.items():
            replicas.add_metric([engine.engine_id, state], count)
    there = GaugeMetricFamily("kolosal_cluster_nodes", "Machines of the cluster, by state.", labels=["state"])
    for state, count in nodes.items():
        there.add_metric([state], count)
    yield from (replicas, there)


def _like_llama_server(rows: Sequence[tuple[EngineFacts, Counts]]) -> Iterator[Metric]:
    computed = _counter("llamacpp:prompt_tokens", "Prompt tokens computed, less those found in the KV cache.")
    predicted = _counter("llamacpp:tokens_predicted", "Tokens generated.")
    predicted_s = _counter(
        "llamacpp:tokens_predicted_seconds", "Seconds from first tokens to the ends of requests."
    )
    processing = _gauge("llamacpp:requests_processing", "Requests that run.")
    deferred = _gauge("llamacpp:requests_deferred", "Requests that wait for others to end.")
    cells = _gauge(
        "llamacpp:kv_cache_tokens", "Cells of the KV cache in use, finished conversations included."
    )
    usage = _gauge("llamacpp:kv_cache_usage_ratio", "The part of the KV cache that is in use; 1 is all.")
    for facts, counts in rows:
        label = [facts.engine_id]
        computed.add_metric(label, counts.prompt_tokens - counts.cached_tokens)
        predicted.add_metric(label, counts.output_tokens)
        predicted_s.add_metric(label, counts.output_s)
        processing.add_metric(label, min(counts.running, facts.n_parallel))
        deferred.add_metric(label, max(0, counts.running - facts.n_parallel))
        if facts.kv_cells is not None and facts.kv_pool_tokens:
            cells.add_metric(label, facts.kv_cells)
            usage.add_metric(label, facts.kv_cells / facts.kv_pool_tokens)
    yield from (computed, predicted, predicted_s, processing, deferred, cells, usage)


def _requests(rows: Sequence[tuple[EngineFacts, Counts]]) -> Iterator[Metric]:
    ended = _counter("kolosal_requests", "Generations that ended, by outcome.", "outcome")
    errors = _counter(
        "kolosal_request_errors", "Generations that failed, by the code of their error.", "code"
    )
    prompt = _counter("kolosal_prompt_tokens", "Tokens of prompts, cached ones included.")
    cached = _counter("kolosal_cached_prompt_tokens", "Tokens of prompts that were found in the KV cache.")
    calls = _counter("kolosal_questions", "What was asked besides generating.", "kind", "outcome")
    ttft = HistogramMetricFamily(
        "kolosal_time_to_first_token_seconds", "Until the first token, waiting included.", labels=["engine"]
    )
    duration = HistogramMetricFamily(
        "kolosal_request_duration_seconds", "From a generation's start to its end.", labels=["engine"]
    )
    rate = HistogramMetricFamily(
        "kolosal_output_tokens_per_second",
        "How fast generations were from their first token on.",
        labels=["engine"],
    )
    for facts, counts in rows:
        engine_id = facts.engine_id
        for outcome, count in sorted(counts.outcomes.items()):
            ended.add_metric([engine_id, outcome], count)
        for code, count in sorted(counts.errors.items()):
            errors.add_metric([engine_id, code], count)
        for (kind, outcome), count in sorted(counts.unary_calls.items()):
            calls.add_metric([engine_id, kind, outcome], count)
        prompt.add_metric([engine_id], counts.prompt_tokens)
        cached.add_metric([engine_id], counts.cached_tokens)
        ttft.add_metric([engine_id], _buckets(counts.ttft), counts.ttft.total)
        duration.add_metric([engine_id], _buckets(counts.duration), counts.duration.total)
        rate.add_metric([engine_id], _buckets(counts.output_rate), counts.output_rate.total)
    yield from (ended, errors, prompt, cached, calls, ttft, duration, rate)


def _saved(engines: Sequence[EngineFacts]) -> Iterator[Metric]:
    n_bytes = _gauge("kolosal_saved_bytes", "Host memory of conversations that have no KV cells now.")
    on_disk = _gauge("kolosal_saved_disk_bytes", "Files of conversations with this model.")
    restores = _counter("kolosal_restores", "Prompts whose KV cells were restored from there.")
    tokens = _counter("kolosal_restored_tokens", "Tokens of prompts that were not computed again for that.")
    seconds = _counter("kolosal_restores_saved_seconds", "What computing them would have taken longer.")
    for facts in engines:
        label = [facts.engine_id]
        n_bytes.add_metric(label, facts.saved_bytes)
        on_disk.add_metric(label, facts.saved_disk_bytes)
        restores.add_metric(label, facts.restores)
        tokens.add_metric(label, facts.restored_tokens)
        seconds.add_metric(label, facts.restores_saved_s)
    yield from (n_bytes, on_disk, restores, tokens, seconds)


def _states(rows: Sequence[tuple[EngineFacts, Counts]]) -> Iterator[Metric]:
    state = _gauge("kolosal_engine_state", "1 for the state that an engine is in.", "state")
    progress = _gauge("kolosal_engine_load_progress", "How much of the model is loaded; 1 is all.")
    loads = _counter("kolosal_engine_loads", "How often the model was loaded.")
    deaths = _counter("kolosal_engine_deaths", "How often the worker ended by itself.")
    for facts, counts in rows:
        for name in dict.fromkeys((*_STATES, facts.state)):
            state.add_metric([facts.engine_id, name], facts.state == name)
        progress.add_metric([facts.engine_id], facts.load_progress)
        loads.add_metric([facts.engine_id], counts.loads)
        deaths.add_metric([facts.engine_id], counts.deaths)
    yield from (state, progress, loads, deaths)


def _machine(use: SystemUse) -> Iterator[Metric]:
    yield GaugeMetricFamily("kolosal_cpu_usage_percent", "Of all cores together.", value=use.cpu_percent)
    yield GaugeMetricFamily("kolosal_memory_total_bytes", "The machine's memory.", value=use.memory_total)
    yield GaugeMetricFamily(
        "kolosal_memory_available_bytes", "What of it is available.", value=use.memory_available
    )
    yield GaugeMetricFamily(
        "kolosal_daemon_resident_memory_bytes", "Memory of the daemon's own process.", value=use.daemon_bytes
    )
    workers = _gauge("kolosal_worker_resident_memory_bytes", "Memory of an engine's process.")
    for engine_id, size in use.worker_bytes.items():
        workers.add_metric([engine_id], size)
    yield workers
    values: list[tuple[str, str, Callable[[GpuFacts], float | None]]] = [
        ("kolosal_gpu_memory_total_bytes", "Memory of a GPU.", lambda gpu: gpu.total_bytes),
        ("kolosal_gpu_memory_used_bytes", "Memory of a GPU in use.", lambda gpu: gpu.used_bytes),
        ("kolosal_gpu_utilization_percent", "How busy a GPU is.", lambda gpu: gpu.gpu_percent),
        ("kolosal_gpu_temperature_celsius", "Temperature of a GPU.", lambda gpu: gpu.temperature_c),
        ("kolosal_gpu_power_watts", "Power that a GPU draws.", lambda gpu: gpu.power_w),
    ]
    for name, words, value_of in values:
        family = GaugeMetricFamily(name, words, labels=["gpu"])
        for gpu in use.gpus.gpus:
            if (value := value_of(gpu)) is not None:
                family.add_metric([str(gpu.index)], value)
        yield family


def _counter(name: str, words: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, words, labels=["engine", *labels])


def _gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, words, labels=["engine", *labels])


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
    return [*zip(bounds, accumulate(histogram.buckets), strict=True)]
