"""Settings: the names, bounds, defaults and meanings of all that an operator can set.

Knows neither where values come from (`config`) nor what they do. One field, one line of meaning: the documentation,
`kolosal config show` and the error messages are made of what stands here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from kolosal.config.key import Key
from kolosal.config.security import SecuritySettings
from kolosal.engines.memory.policy import DEFAULT_RULES, MAX_TTL_S, Rules
from kolosal.engines.parameters import EngineId, LoadingParameters

ENV_PREFIX = "KOLOSAL_"

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


class Settings(SecuritySettings):
    """All settings, valid and unchangeable. Made by `load_settings`, or directly in tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[
        str,
        Key("server.host"),
        Field(
            max_length=253,
            pattern=r"^[A-Za-z0-9_.:%-]+$",
            description="Address to listen on. Any but a loopback address lets other machines in.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Key("server.port"),
        Field(ge=0, le=65535, description="TCP port to listen on; 0 lets the system choose a free one."),
    ] = 8080
    default_engine: Annotated[
        EngineId | None,
        Key("server.default_engine"),
        Field(
            description="Engine for requests that name none; empty: most protocols then want a name, the others take "
            "the first engine."
        ),
    ] = None
    max_body_bytes: Annotated[
        int,
        Key("server.max_request_size"),
        Field(
            ge=1024, le=1024**3, description="Bytes of one request body; a longer one is refused with 413."
        ),
    ] = 16 * 1024 * 1024
    shutdown_drain_s: Annotated[
        float,
        Key("server.shutdown_drain_s"),
        Field(
            ge=0,
            le=3600,
            allow_inf_nan=False,
            description="Seconds that running requests get to finish when the daemon stops; then they fail.",
        ),
    ] = 30.0
    max_requests: Annotated[
        int,
        Key("server.max_requests"),
        Field(
            ge=1,
            le=100_000,
            description="Requests that may load, wait or generate at the same time; more are refused with 503.",
        ),
    ] = 1024
    max_requests_per_key: Annotated[
        int,
        Key("server.max_requests_per_key"),
        Field(
            ge=1,
            le=100_000,
            description="The same for one API key, where keys are used; more are refused with 429.",
        ),
    ] = 512
    queue_timeout_s: Annotated[
        float,
        Key("server.queue_timeout_s"),
        Field(
            ge=0.1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds that a request may wait for its first token; then it is refused with 503.",
        ),
    ] = 600.0
    max_queued: Annotated[
        int,
        Key("engines.max_queued"),
        Field(
            ge=0,
            le=100_000,
            description="Requests that may wait per engine beyond those it runs; more are refused with 429.",
        ),
    ] = 256
    idle_ttl_s: Annotated[
        float,
        Key("engines.idle_ttl_s"),
        Field(
            ge=0,
            le=MAX_TTL_S,
            allow_inf_nan=False,
            description="Seconds without a request after which an engine is unloaded, until the next one; 0 never.",
        ),
    ] = 300.0
    memory_check: Annotated[
        bool,
        Key("engines.memory_check"),
        Field(
            description="Load a model only where it fits by estimate, and unload idle engines to make room."
        ),
    ] = True
    memory_limit_bytes: Annotated[
        int,
        Key("engines.memory_limit_bytes"),
        Field(
            ge=0,
            le=1 << 50,
            description="Bytes of host memory all engines may take together; 0: all there is.",
        ),
    ] = 0
    room_wait_s: Annotated[
        float,
        Key("engines.room_wait_s"),
        Field(
            ge=0.1,
            le=3600,
            allow_inf_nan=False,
            description="Seconds that a load may wait for busy engines to make room; then it is refused with 503.",
        ),
    ] = 60.0
    keep_engines: Annotated[
        bool,
        Key("engines.keep"),
        Field(
            description="Remember engines that are added at run time, and have them again after a restart."
        ),
    ] = True
    state_dir: Annotated[
        str | None,
        Key("server.state_dir"),
        Field(min_length=1, max_length=4096, description="Folder for what is remembered over restarts."),
    ] = None
    load_stall_timeout_s: Annotated[
        float,
        Key("engines.load_stall_timeout_s"),
        Field(
            ge=1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds without any progress after which loading a model is given up.",
        ),
    ] = 120.0
    stop_grace_s: Annotated[
        float,
        Key("engines.stop_grace_s"),
        Field(
            ge=0.1,
            le=300,
            allow_inf_nan=False,
            description="Seconds that a worker process gets to end by itself before it is made to.",
        ),
    ] = 5.0
    step_timeout_s: Annotated[
        float,
        Key("engines.step_timeout_s"),
        Field(
            ge=1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds without a sign of life after which a worker process is killed and replaced.",
        ),
    ] = 60.0
    max_crashes: Annotated[
        int,
        Key("engines.max_crashes"),
        Field(
            ge=1, le=1000, description="Crashes within the window after which an engine rests for as long."
        ),
    ] = 5
    crash_window_s: Annotated[
        float,
        Key("engines.crash_window_s"),
        Field(
            ge=1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds for which a crash counts against an engine.",
        ),
    ] = 60.0
    responses_max_count: Annotated[
        int,
        Key("responses.max_count"),
        Field(
            ge=0,
            le=1_000_000,
            description="Responses of the Responses API to keep at most; the least recently used go first.",
        ),
    ] = 1000
    responses_max_bytes: Annotated[
        int,
        Key("responses.max_bytes"),
        Field(
            ge=0,
            le=64 * 1024**3,
            description="Bytes of memory for kept responses, each with the conversation before it.",
        ),
    ] = 64 * 1024 * 1024
    responses_ttl_s: Annotated[
        float,
        Key("responses.ttl_s"),
        Field(
            ge=1,
            le=30 * 86_400,
            allow_inf_nan=False,
            description="Seconds after which a kept response is forgotten.",
        ),
    ] = 86_400.0
    rpc_max_iterations: Annotated[
        int,
        Key("rpc.max_iterations"),
        Field(
            ge=1,
            le=10_000,
            description="Times that results of tools may be sent back in one conversation over `/rpc`; then it must end.",
        ),
    ] = 30
    sessions_max_count: Annotated[
        int,
        Key("sessions.max_count"),
        Field(
            ge=1, le=1_000_000, description="Sessions at most; the least recently used idle one goes first."
        ),
    ] = 1000
    sessions_max_connections: Annotated[
        int,
        Key("sessions.max_connections"),
        Field(
            ge=1, le=100_000, description="WebSocket connections at the same time; more are closed with 1013."
        ),
    ] = 256
    sessions_max_message_bytes: Annotated[
        int,
        Key("sessions.max_message_size"),
        Field(
            ge=1024,
            le=1024**3,
            description="Bytes of one WebSocket message; a longer one is closed with 1009.",
        ),
    ] = 4 * 1024 * 1024
    sessions_max_legs: Annotated[
        int,
        Key("sessions.max_legs"),
        Field(ge=1, le=1000, description="Times that one `generate` may call tools; then it must end."),
    ] = 5
    sessions_messages_per_s: Annotated[
        float,
        Key("sessions.messages_per_s"),
        Field(
            ge=0.1,
            le=100_000,
            allow_inf_nan=False,
            description="Messages a second that one WebSocket connection may send; one that keeps sending more is closed with 1008.",
        ),
    ] = 50.0
    sessions_ttl_s: Annotated[
        float,
        Key("sessions.ttl_s"),
        Field(
            ge=1,
            le=30 * 86_400,
            allow_inf_nan=False,
            description="Seconds without a connection after which a session is forgotten, and that a call waits for its result.",
        ),
    ] = 3600.0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Key("logging.level"),
        Field(description="The least important events that are logged."),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Key("logging.format"),
        Field(description="How log lines look: for people, or one JSON object a line."),
    ] = "text"
    log_file: Annotated[
        str | None,
        Key("logging.file"),
        Field(
            min_length=1,
            max_length=4096,
            description="File that log lines are also written to, in an existing folder; empty: stderr only.",
        ),
    ] = None
    log_file_bytes: Annotated[
        int,
        Key("logging.file_bytes"),
        Field(
            ge=4096,
            le=1024**4,
            description="Bytes after which the log file is put aside and a new one begun.",
        ),
    ] = 10 * 1024 * 1024
    log_file_count: Annotated[
        int,
        Key("logging.file_count"),
        Field(ge=1, le=1000, description="Log files put aside that are kept, named .1, .2 and so on."),
    ] = 5
    traces_url: Annotated[
        str | None,
        Key("logging.traces_url"),
        Field(
            max_length=2048,
            pattern=r"^https?://[^\s]+$",
            description="Where to send a trace of each generation by OTLP over HTTP; needs the extra otel; empty: nowhere.",
        ),
    ] = None
    access_log: Annotated[
        bool, Key("logging.access_log"), Field(description="Log one line for each HTTP request.")
    ] = True
    models: Annotated[
        tuple[ModelEntry, ...],
        Key("models"),
        Field(max_length=MAX_MODELS, description="Engines to add when the daemon starts."),
    ] = ()

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the daemon."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        scheme = "http" if self.tls_certificate is None else "https"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"


def yaml_key(name: str) -> str:
    """The `section.key` of a field of `Settings`."""
    return next(item.name for item in Settings.model_fields[name].metadata if isinstance(item, Key))


def variable_name(name: str) -> str:
    """The environment variable of a field of `Settings`."""
    return ENV_PREFIX + name.upper()
