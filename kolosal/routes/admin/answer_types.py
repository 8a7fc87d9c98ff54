"""The JSON of answers that belong to no dialect, for the document. Tests compare it with what is really sent."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from kolosal.engines.parameters import LoadingParameters


class About(TypedDict):
    """What answers here."""

    name: str
    version: str
    status: Literal["running"]
    api: list[str]
    """The main paths."""
    docs: str
    """Where to read on."""


class Server(TypedDict):
    """The daemon."""

    name: str
    version: str
    uptime: float
    """Seconds since it started."""


class Counts(TypedDict):
    """How many engines there are."""

    total_engines: int
    loaded_engines: int
    unloaded_engines: int
    """An engine that is loading counts as unloaded."""
    autoscaling: Literal["enabled"]
    """Engines that are not loaded are loaded when they are used."""


class EngineStatus(TypedDict):
    """An engine in a word."""

    engine_id: str
    status: Literal["loaded", "unloaded"]


class Health(TypedDict):
    """The daemon and its engines."""

    status: Literal["healthy"]
    timestamp: int
    """Unix time in milliseconds."""
    server: Server
    node_manager: Counts
    engines: list[EngineStatus]


class EngineRow(EngineStatus):
    """An engine in a list."""

    last_accessed: str | None
    """UTC, to the second; null: never used."""


class EngineList(TypedDict):
    """All engines."""

    engines: list[EngineRow]
    total_count: int


class EngineAdded(TypedDict):
    """An engine as it was added."""

    engine_id: str
    model_path: str
    status: Literal["loaded", "created"]
    load_immediately: bool
    loading_parameters: LoadingParameters
    """What the worker really got once the model was loaded, before that what was asked for."""
    main_gpu_id: int
    message: str


class BytesHeld(TypedDict):
    """Bytes, by where they are."""

    host: int
    gpus: dict[str, int]


class BytesByPurpose(TypedDict):
    """Bytes on one device."""

    weights: int
    kv_cache: int
    compute: int
    process: int
    total: int
    mapped: NotRequired[int]
    """Of the host's: bytes of the file that are only mapped, and can be read again."""


class DeviceBytes(TypedDict):
    """Bytes by device and by purpose, for a number of KV cells."""

    kv_pool_tokens: int
    host: BytesByPurpose
    gpus: dict[str, BytesByPurpose]


class HostMemory(TypedDict):
    """The host's memory, in bytes."""

    total: int
    free: int


class GpuMemory(TypedDict):
    """A GPU's memory."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int


class Machine(TypedDict):
    """What there is."""

    host: HostMemory
    gpus: list[GpuMemory]


class EngineEstimate(DeviceBytes):
    """What an engine takes or would take."""

    engine_id: str
    model_path: str
    fits: bool
    """It could be loaded now."""
    can_fit: bool
    """It could be loaded once others are idle."""
    unloads: list[str]
    """Engines that would be unloaded for it."""
    least: DeviceBytes
    """With the smallest KV cache that it works with."""
    free: BytesHeld
    machine: Machine


class EngineDetails(EngineRow):
    """Everything there is to know about an engine."""

    state: Literal["unloaded", "loading", "ready", "unloading", "closed"]
    model_path: str
    loading_parameters: LoadingParameters
    """What the worker really got once the model was loaded, before that what was asked for."""
    main_gpu_id: int
    info: dict[str, Any] | None
    """Facts about the model; null until it is loaded."""
    load_progress: float | None
    """0 to 1 while it loads."""
    last_error: str | None
    recent_crashes: int
    breaker: Literal["closed", "open", "half_open"]
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
    memory: BytesHeld | None
    """What it holds, as estimated; null while it holds nothing."""


class EngineSays(EngineStatus):
    """An engine's status, also as a sentence."""

    available: bool
    message: str


class EngineRemoved(TypedDict):
    """What became of an engine."""

    engine_id: str
    status: Literal["removed"]
    message: str
    in_flight: int
    """Generations that still run; the memory is free when they have finished."""


class EngineLog(TypedDict):
    """The last lines of an engine's worker."""

    engine_id: str
    lines: list[str]
    dropped: int
    """Lines before these, kept or not."""
