"""Removing a model of the library: its engine, then its files."""

from __future__ import annotations

import asyncio

from kolosal.errors import Conflict
from kolosal.models.entry import LibraryModel
from kolosal.routes.common.known_models import engines_of
from kolosal.routes.common.services import Services


async def remove_model(services: Services, model: LibraryModel) -> int:
    """Remove a model; the bytes that were freed. An engine that a request made of it goes first, and its answers finish.

    Raises:
        Conflict: an engine that somebody added uses it, or a file cannot be removed.
    """
    engines = engines_of(services, model)
    for engine in engines:
        if not engine.from_library:
            raise Conflict(
                f"Model '{model.name}' is used by the engine '{engine.engine_id}': remove that first",
                param="model",
                code="model_in_use",
            )
    await asyncio.gather(*(asyncio.shield(services.registry.remove(engine.engine_id)) for engine in engines))
    try:
        return await services.library.remove(model)
    except OSError as exc:
        raise Conflict(
            f"Model '{model.name}' cannot be removed: {exc.strerror or exc}",
            param="model",
            code="model_not_removed",
        ) from exc
