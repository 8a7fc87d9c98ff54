"""How long an engine stays in memory, as far as a request may say. The one place where the dialect acts on `keep_alive`."""

from __future__ import annotations

import asyncio

from kolosal.engines.engine import Engine, EngineState


async def apply_keep_alive(engine: Engine, seconds: float | None) -> None:
    """Called after an answer, with what its request said: less than 0 is for ever, None as the engine's rules say.

    0 frees the engine's memory unless others use it.
    """
    engine.keep_alive(seconds)
    if seconds == 0:
        await unload(engine)


async def unload(engine: Engine, *, until_free: bool = False) -> None:
    """Free an engine's memory and keep its name: the next use loads it again. One that is in use stays.

    With `until_free` this returns when the memory is free.
    """
    if engine.state is not EngineState.READY or engine.busy:
        return
    ended = engine.unload()
    if until_free:
        await asyncio.shield(ended)
