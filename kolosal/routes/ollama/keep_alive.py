"""`keep_alive`: how long a model stays in memory, in all the forms that Ollama takes, and what is done about it.

What stays in memory concerns everybody, so only requests of `admin` may say, or all where no keys are used.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeAlias

from pydantic import Field
from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.state import EngineState
from kolosal.errors import Forbidden, InvalidRequest
from kolosal.models.durations import MAX_DURATION_CHARS, duration_seconds
from kolosal.routes.common.access import is_admin
from kolosal.routes.common.fields import NUMBER, STRING, by_kind

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
    seconds = duration_seconds(keep_alive)
    if seconds is None:
        raise InvalidRequest(
            f'keep_alive must be a number of seconds or a duration such as "5m" or "1h30m", not {keep_alive!r}',
            param="keep_alive",
        )
    return seconds


async def apply_keep_alive(request: Request, engine: Engine, seconds: float | None) -> None:
    """Called after an answer, with what its request said: less than 0 is for ever, None as is said of the engine.

    0 frees the engine's memory unless others use it. A request that may not say is as one that does not.
    """
    if not is_admin(request.scope):
        seconds = None
    if seconds is None:
        return  # as is said of the model
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
