"""The section `engines:`: queues and memory of engines, and how long their worker processes are borne with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from kolosal.config.section import COMMAS, FilePath, SettingsSection, Variable

MAX_TTL_S = 31_536_000.0
"""A year: bound of every time an engine may stay idle."""

MAX_QUEUED_LIMIT = 100_000
"""Bound of the requests that may wait for one engine."""


class EngineSettings(SettingsSection):
    """What holds for all engines; an engine's own `Rules` and parameters may say otherwise for it."""

    model_roots: Annotated[tuple[FilePath, ...], COMMAS] = Field(default=(), max_length=100)
    """Folders that models may be added from by request; empty: any, and with API keys the folders of the configured models and of the library."""
    max_queued: int = Field(default=256, ge=0, le=MAX_QUEUED_LIMIT)
    """Requests that may wait per engine beyond those it runs; more are refused with 429."""
    idle_ttl_s: FiniteFloat = Field(default=300.0, ge=0, le=MAX_TTL_S)
    """Seconds without a request after which an engine is unloaded, until the next one; 0 never."""
    memory_check: bool = True
    """Load a model only where it fits by estimate, and unload idle engines to make room."""
    memory_limit_bytes: int = Field(default=0, ge=0, le=1 << 50)
    """Bytes of host memory all engines may take together; 0: all there is."""
    cache_disk_bytes: int = Field(default=0, ge=0, le=1 << 50)
    """Bytes of files in the state folder for conversations without KV cells, of all engines together: they outlive workers and restarts. 0: none."""
    room_wait_s: FiniteFloat = Field(default=60.0, ge=0.1, le=3600)
    """Seconds that a load may wait for busy engines to make room; then it is refused with 503."""
    keep: Annotated[bool, Variable("KEEP_ENGINES")] = True
    """Remember engines that are added at run time, and have them again after a restart."""
    spare_worker: bool = True
    """Keep one worker process without a model ready while engines are loaded, so that the next one loads sooner; it takes some 60 MB."""
    # what the worker prints is progress, too: a slow disk that moves is no failure
    load_stall_timeout_s: FiniteFloat = Field(default=120.0, ge=1, le=86_400)
    """Seconds without any progress after which loading a model is given up."""
    stop_grace_s: FiniteFloat = Field(default=5.0, ge=0.1, le=300)
    """Seconds that a worker process gets to end by itself before it is made to."""
    # no step of a worker may take longer
    step_timeout_s: FiniteFloat = Field(default=60.0, ge=1, le=86_400)
    """Seconds without a sign of life after which a worker process is killed and replaced."""
    # a load that fails is one, too; so many of those one after the other count however long they take
    max_crashes: int = Field(default=5, ge=1, le=1000)
    """Crashes within the window after which an engine rests for as long."""
    crash_window_s: FiniteFloat = Field(default=60.0, ge=1, le=86_400)
    """Seconds for which a crash counts against an engine."""
