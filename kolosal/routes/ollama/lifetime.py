"""How long an engine stays in memory, as far as a request may say. The one place where the dialect acts on `keep_alive`."""

from __future__ import annotations

import asyncio

from kolosal.engines.engine import Engine, EngineState
from kolosal.engines.registry import EngineRegistry


async def apply_keep_alive(registry: EngineRegistry, engine: Engine, seconds: float | None) -> None:
    """Called after an answer, with what its request said; None: nothing.

    0 frees the engine's memory unless others use it. Engines stay loaded anyway, so any other number changes nothing.
    """
    if seconds == 0:
        await unload(registry, engine)


async def unload(registry: EngineRegistry, engine: Engine, *, until_free: bool = False) -> None:
    """Free an engine's memory and keep its name: the next use loads it again. One that is in use stays.

    With `until_free` this returns when the memory is free.
    """
    if engine.state is not EngineState.READY or engine.in_flight or engine not in registry.list():
        return
    ended = registry.remove(engine.engine_id)
    fresh = await registry.add(engine.config, load=False)
    fresh.info, fresh.created_at, fresh.last_used_at = engine.info, engine.created_at, engine.last_used_at
    if until_free:
        await asyncio.shield(ended)
