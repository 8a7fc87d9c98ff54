"""EngineRegistry: names → engines.

Owns the set of engines and the background tasks that drain removed ones. The only place that adds or removes an
engine. Listing never touches an engine: it loads nothing and resets no timer.
"""

from __future__ import annotations

import asyncio
import logging

from kolosal.engines.engine import Engine
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.process import WorkerCommand
from kolosal.errors import Conflict, Draining, EngineNotFound, NotFound

log = logging.getLogger(__name__)


class EngineRegistry:
    """All engines of a daemon, by id. Used on the event loop only."""

    def __init__(self, command: WorkerCommand, *, max_queued: int, default_engine: str | None = None) -> None:
        self._command = command
        self._max_queued = max_queued
        self._default_engine = default_engine
        self._engines: dict[str, Engine] = {}
        self._draining: dict[asyncio.Task[None], Engine] = {}
        self._closed = False

    def list(self) -> list[Engine]:
        """All engines in the order they were added."""
        return [*self._engines.values()]

    def get(self, engine_id: str) -> Engine:
        """The engine of that exact name, loaded or not.

        Raises:
            EngineNotFound: there is none.
        """
        try:
            return self._engines[engine_id]
        except KeyError:
            raise EngineNotFound("Engine not found", param="engine_id") from None

    async def add(self, config: EngineConfig, *, load: bool) -> Engine:
        """Register an engine and load it unless told not to. When loading fails the name is free again.

        Raises:
            Conflict: the name is taken, also by an engine that is still loading.
            LoadFailed: the worker could not load the model.
            Draining: the daemon is shutting down.
        """
        if self._closed:
            raise Draining("The server is shutting down")
        engine_id = config.engine_id
        if engine_id in self._engines:
            raise Conflict(
                f"Engine ID '{engine_id}' already exists. Please choose a different engine ID.",
                param="engine_id",
                code="engine_id_exists",
            )
        engine = self._engines[engine_id] = Engine(config, self._command, self._max_queued)
        if load:
            try:
                await engine.ensure_ready()
            except BaseException:
                if self._engines.get(engine_id) is engine:
                    del self._engines[engine_id]
                await asyncio.shield(engine.close())
                raise
        return engine

    def remove(self, engine_id: str) -> asyncio.Task[None]:
        """Forget an engine at once; its running requests finish, then its worker ends.

        Returns the task that waits for that. It is the registry's own: awaiting it is optional, and whoever does
        shields it.

        Raises:
            EngineNotFound: there is no such engine.
        """
        engine = self.get(engine_id)
        del self._engines[engine_id]
        task = asyncio.create_task(self._retire(engine), name=f"retire {engine_id}")
        self._draining[task] = engine
        task.add_done_callback(self._draining.pop)
        return task

    async def acquire(self, model: str | None) -> Engine:
        """The engine a request names, loaded. Call `generate` on it before the next await.

        Without a name: the configured default engine, else the only or first one.

        Raises:
            NotFound: there is no such engine, or none at all.
            LoadFailed: it was not loaded, and loading failed.
        """
        if self._closed:
            raise Draining("The server is shutting down")
        name = model or self._default_engine or next(iter(self._engines), None)
        if name is None:
            raise NotFound("No engine has been added yet: add one with POST /engines")
        engine = self._engines.get(name)
        if engine is None:
            raise NotFound(f"Model '{name}' not found or could not be loaded")
        await engine.ensure_ready()
        return engine

    @property
    def default_engine(self) -> str | None:
        """The engine used where a request may leave the name out, as configured."""
        return self._default_engine

    async def close(self, *, drain_s: float) -> None:
        """End all engines. Running requests get `drain_s` seconds to finish, then fail. Idempotent."""
        self._closed = True
        retiring = {
            asyncio.create_task(self._retire(engine)): engine for engine in self.list()
        } | self._draining
        self._engines.clear()
        if retiring:
            _, late = await asyncio.wait(retiring, timeout=drain_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        # Again, and surely: a late task may have been cancelled while it ended its worker.
        await asyncio.gather(*(engine.close() for engine in retiring.values()))

    async def _retire(self, engine: Engine) -> None:
        try:
            await engine.drain()
        finally:
            await engine.close()
