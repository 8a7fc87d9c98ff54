"""`keep_alive`: how long a model stays in memory, in all the forms that Ollama takes, and what is done about it.

What stays in memory concerns everybody, so only requests of `admin` may say, or all where no keys are used.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import Annotated, TypeAlias

from pydantic import Field
from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.state import EngineState
from kolosal.errors import Forbidden, InvalidRequest
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.fields import NUMBER, STRING, by_kind

MAX_KEEP_ALIVE_S = 100 * 365 * 86_400.0
"""Longer than this is as good as for ever: seconds of a hundred years."""

MAX_DURATION_CHARS = 64
"""Characters of a duration that is written out."""

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"([+-]?)((?:{_PART.pattern})+)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)


KeepAlive: TypeAlias = Annotated[
    Annotated[str, Field(max_length=MAX_DURATION_CHARS), STRING]
    | Annotated[float, Field(allow_inf_nan=False), NUMBER],
    by_kind('a number of seconds or a duration such as "5m"'),
]
"""Seconds, or a duration as Go writes it (https://pkg.go.dev/time#ParseDuration): `"5m"`, `"1h30m"`, `"-1m"`."""


def keep_alive_seconds(keep_alive: str | float | None) -> float | None:
    """Seconds to stay in memory after the answer: 0 is not at all, -1 for ever, None: the request does not say."""
    if keep_alive is None or keep_alive == "":
        return None
    seconds = _seconds(keep_alive) if isinstance(keep_alive, str) else keep_alive
    if seconds is None:
        raise InvalidRequest(
            f'keep_alive must be a number of seconds or a duration such as "5m" or "1h30m", not {keep_alive!r}',
            param="keep_alive",
        )
    return -1.0 if seconds < 0 else min(seconds, MAX_KEEP_ALIVE_S)


def _seconds(text: str) -> float | None:
    """Seconds of a duration; None where it is none."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    whole = _DURATION.fullmatch(text)
    if whole is None:
        return None
    total = math.fsum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(whole[2]))
    return -total if whole[1] == "-" else total


async def apply_keep_alive(request: Request, engine: Engine, seconds: float | None) -> None:
    """Called after an answer, with what its request said: less than 0 is for ever, None as the engine's rules say.

    0 frees the engine's memory unless others use it. A request that may not say is as one that does not.
    """
    if not is_admin(request.scope):
        seconds = None
    engine.keep_alive(seconds)
    if seconds == 0 and _is_unused(engine):
        engine.unload()


async def free(request: Request, engine: Engine) -> None:
    """Free the memory of an engine that nobody uses, and return when it is free. Its name stays: the next use loads it again."""
    if not is_admin(request.scope):
        raise Forbidden("Freeing a model needs an API key with the scope 'admin'", code="missing_scope")
    if _is_unused(engine):
        await asyncio.shield(engine.unload())


def _is_unused(engine: Engine) -> bool:
    return engine.state is EngineState.READY and not engine.busy
