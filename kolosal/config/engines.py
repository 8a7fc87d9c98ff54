"""The section `engines:`: queues and memory of engines, and how long their worker processes are borne with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kolosal.config.section import COMMAS, FilePath, SettingsSection, Variable

MAX_TTL_S = 31_536_000.0
"""A year: bound of every time an engine may stay idle."""

MAX_QUEUED_LIMIT = 100_000
"""Bound of the requests that may wait for one engine."""


class EngineSettings(SettingsSection):
    """What holds for all engines; an engine's own `Rules` and parameters may say otherwise for it."""

    model_roots: Annotated[
        tuple[FilePath, ...],
        COMMAS,
        Field(
            max_length=100,
            description="Folders that models may be added from by request; empty: any, and with API keys "
            "the folders of the configured models.",
        ),
    ] = ()
    max_queued: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_QUEUED_LIMIT,
            description="Requests that may wait per engine beyond those it runs; more are refused with 429.",
        ),
    ] = 256
    idle_ttl_s: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_TTL_S,
            allow_inf_nan=False,
            description="Seconds without a request after which an engine is unloaded, until the next one; 0 never.",
        ),
    ] = 300.0
    memory_check: Annotated[
        bool,
        Field(
            description="Load a model only where it fits by estimate, and unload idle engines to make room."
        ),
    ] = True
    memory_limit_bytes: Annotated[
        int,
        Field(
            ge=0,
            le=1 << 50,
            description="Bytes of host memory all engines may take together; 0: all there is.",
        ),
    ] = 0
    room_wait_s: Annotated[
        float,
        Field(
            ge=0.1,
            le=3600,
            allow_inf_nan=False,
            description="Seconds that a load may wait for busy engines to make room; then it is refused with 503.",
        ),
    ] = 60.0
    keep: Annotated[
        bool,
        Variable("KEEP_ENGINES"),
        Field(
            description="Remember engines that are added at run time, and have them again after a restart."
        ),
    ] = True
    load_stall_timeout_s: Annotated[
        float,
        Field(
            ge=1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds without any progress after which loading a model is given up.",
        ),
    ] = 120.0
    """Output of the worker is progress too: a slow disk that moves is no failure."""
    stop_grace_s: Annotated[
        float,
        Field(
            ge=0.1,
            le=300,
            allow_inf_nan=False,
            description="Seconds that a worker process gets to end by itself before it is made to.",
        ),
    ] = 5.0
    step_timeout_s: Annotated[
        float,
        Field(
            ge=1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds without a sign of life after which a worker process is killed and replaced.",
        ),
    ] = 60.0
    """No step of a worker may take longer."""
    max_crashes: Annotated[
        int,
        Field(
            ge=1, le=1000, description="Crashes within the window after which an engine rests for as long."
        ),
    ] = 5
    """A load that fails is one, too. So many loads that fail one after the other count however long they take."""
    crash_window_s: Annotated[
        float,
        Field(
            ge=1,
            le=86_400,
            allow_inf_nan=False,
            description="Seconds for which a crash counts against an engine.",
        ),
    ] = 60.0
