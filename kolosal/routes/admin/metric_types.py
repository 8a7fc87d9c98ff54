"""The JSON of metrics, for the document. Tests compare it with what is really sent."""

from __future__ import annotations

from typing_extensions import TypedDict


class CpuUse(TypedDict):
    """The processor."""

    usage_percent: float
    """Of all cores together, since the answer before."""


class MemoryUse(TypedDict):
    """A memory."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    """What programs can have without others being swapped out."""
    total_formatted: str
    used_formatted: str
    free_formatted: str


class RamUse(MemoryUse):
    """The machine's memory."""

    utilization_percent: float


class EngineMemory(TypedDict):
    """An engine's process."""

    engine_id: str
    memory_bytes: int
    """Resident memory; the model's file counts as far as it is mapped and in memory."""


class ProcessUse(TypedDict):
    """Our own processes."""

    daemon_bytes: int
    engines: list[EngineMemory]


class GpuUtilization(TypedDict):
    """How busy a GPU is; null: the driver does not say."""

    gpu_percent: float | None
    memory_percent: float | None


class GpuState(TypedDict):
    """A GPU; null: the driver does not say."""

    id: int
    name: str
    vendor: str
    utilization: GpuUtilization
    memory: MemoryUse | None
    temperature_celsius: float | None
    power_usage_watts: float | None
    driver_version: str


class SystemSummary(TypedDict):
    """The machine in five numbers."""

    cpu_usage_percent: float
    ram_utilization_percent: float
    gpu_count: int
    average_gpu_utilization_percent: float
    average_vram_utilization_percent: float


class Capabilities(TypedDict):
    """What can be looked at here."""

    cpu: bool
    memory: bool
    gpu: bool


class SystemMetadata(TypedDict):
    """Who says it."""

    version: str
    server: str
    monitoring_capabilities: Capabilities


class SystemMetrics(TypedDict):
    """What the machine uses."""

    timestamp: int
    """Unix time in milliseconds."""
    cpu: CpuUse
    memory: RamUse
    processes: ProcessUse
    gpus: list[GpuState]
    gpu_monitoring_available: bool
    summary: SystemSummary
    metadata: SystemMetadata


class Summary(TypedDict):
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


class Descriptions(TypedDict):
    """What the words mean."""

    tps: str
    output_tps: str
    ttft: str
    rps: str


class CompletionMetadata(TypedDict):
    """Who says it."""

    version: str
    server: str
    active_engines: int
    metrics_descriptions: Descriptions


class CompletionFacts(TypedDict):
    """Counts of requests and tokens."""

    summary: Summary
    per_engine_metrics: list[EngineMetrics]
    metadata: CompletionMetadata


class CompletionMetrics(TypedDict):
    """Counts, and when they were taken."""

    completion_metrics: CompletionFacts
    timestamp: int
    """Unix time in milliseconds."""


class AllMetrics(TypedDict):
    """Everything."""

    system_metrics: SystemMetrics
    completion_metrics: CompletionMetrics
    """As `/metrics/completion` gives it, so that the name is there twice."""
    timestamp: int
    """Unix time in milliseconds."""
