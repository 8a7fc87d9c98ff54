"""How long an engine stays in memory, as far as a request may say. The one place where the dialect acts on `keep_alive`.

What stays in memory concerns everybody, so only requests of `admin` may say, or all where no keys are used.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.state import EngineState
from kolosal.errors import Forbidden
from kolosal.routes.common.access import is_admin


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
    """Free the memory of an engine that nobody uses, and return when it is free. Its name stays: the next use loads it again.

    Raises:
        Forbidden: the request may not.
    """
    if not is_admin(request.scope):
        raise Forbidden("Freeing a model needs an API key with the scope 'admin'", code="missing_scope")
    if _is_unused(engine):
        await asyncio.shield(engine.unload())


def _is_unused(engine: Engine) -> bool:
    return engine.state is EngineState.READY and not engine.busy
