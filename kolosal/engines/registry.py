"""EngineRegistry: names → engines.

Owns the set of engines and the background tasks that drain removed ones. The only place that adds, replaces or removes an
engine. Listing never touches an engine: it loads nothing and resets no timer. Which engines have memory is the load scheduler's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.memory.load_scheduler import LoadScheduler
from kolosal.engines.memory.policy import DEFAULT_RULES, Rules
from kolosal.engines.memory.sizing import NoSizes, Sizes
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.persist import EngineFileWriter, StoredEngine
from kolosal.engines.state import EngineState
from kolosal.errors import Conflict, Draining, EngineNotFound, InsufficientMemory, NotFound
from kolosal.observe.observer import Observer

log = logging.getLogger(__name__)


class EngineRegistry:
    """All engines of a daemon, by id. Used on the event loop only."""

    def __init__(
        self,
        command: WorkerCommand,
        *,
        default_engine: str | None = None,
        sizes: Sizes | None = None,
        engine_file: EngineFileWriter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.default_engine = default_engine
        """The engine used where a request may leave the name out, as configured."""
        self._command = command
        self.load_scheduler = LoadScheduler(command.settings, sizes or NoSizes(), clock)
        """Which engines are in memory."""
        self._engine_file = engine_file
        self._engines: dict[str, Engine] = {}
        self._replacing: set[str] = set()
        self._draining: dict[asyncio.Task[None], Engine] = {}
        self._closed = False
        self.observer = Observer()
        """Where all engines tell what they do."""

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

    # --- adding, replacing, removing ---

    def _new_engine(self, config: EngineConfig, rules: Rules) -> Engine:
        return Engine(
            config, self._command, rules=rules, load_scheduler=self.load_scheduler, observer=self.observer
        )

    async def add(
        self, config: EngineConfig, *, load: bool, rules: Rules = DEFAULT_RULES, keep: bool = False
    ) -> Engine:
        """Register an engine and load it unless told not to. When loading fails the name is free again.

        With `keep` it comes back, unloaded, after a restart of the daemon.

        Raises:
            Conflict: the name is taken, also by an engine that is still loading.
            LoadFailed: the worker could not load the model.
            InsufficientMemory: there is no memory for it.
            Draining: the daemon is shutting down.
        """
        self._check_open()
        engine_id = config.engine_id
        if engine_id in self._engines:
            raise Conflict(
                f"Engine ID '{engine_id}' already exists. Please choose a different engine ID.",
                param="engine_id",
                code="engine_id_exists",
            )
        engine = self._engines[engine_id] = self._new_engine(config, rules)
        if load:
            try:
                await engine.ensure_ready()
            except BaseException:
                if self._is_current(engine):
                    del self._engines[engine_id]
                    self.observer.forget(engine_id)
                await asyncio.shield(engine.close())
                raise
        if keep:
            engine.kept = True
            self._save()
        return engine

    async def replace(
        self, config: EngineConfig, *, load: bool, rules: Rules = DEFAULT_RULES, keep: bool = False
    ) -> Engine:
        """Put another engine in the place of the one of that name, without a gap.

        The new one loads first where memory allows that, takes over, and the old one ends after its last stream.
        Otherwise new requests wait while the old one finishes, and is unloaded for the new one to load. Where loading
        fails the old one goes on serving.

        Raises:
            EngineNotFound: there is no engine of that name, or it was removed meanwhile.
            Conflict: it is already being replaced.
            LoadFailed: the worker could not load the model.
            InsufficientMemory: there is no memory for the new one, even without the old one.
            Draining: the daemon is shutting down.
        """
        self._check_open()
        engine_id = config.engine_id
        old = self.get(engine_id)
        if engine_id in self._replacing:
            raise Conflict(
                f"Engine '{engine_id}' is already being replaced", param="engine_id", code="engine_busy"
            )
        self._replacing.add(engine_id)
        new = self._new_engine(config, rules)
        new.kept = keep
        try:
            if load:
                await self._load_in_place_of(old, new)
            else:
                self._take_over(old, new)
        except BaseException:
            self._give_name_back(old, new)
            await asyncio.shield(new.close())
            raise
        finally:
            self._replacing.discard(engine_id)
        if keep or old.kept:
            self._save()
        return new

    async def _load_in_place_of(self, old: Engine, new: Engine) -> None:
        try:
            with self.load_scheduler.without_evicting(new, old):
                await new.ensure_ready()
        except InsufficientMemory:
            if old.state is EngineState.UNLOADED:
                raise  # it has nothing to give
        else:
            self._take_over(old, new)
            return
        with self.load_scheduler.admission.paused(old):
            await self._wait_idle(old, self._command.settings.room_wait_s)
            await asyncio.shield(old.unload())
            await new.ensure_ready()
            self._take_over(old, new)

    def _take_over(self, old: Engine, new: Engine) -> None:
        self._check_open()
        if not self._is_current(old):
            raise EngineNotFound("Engine not found", param="engine_id")
        self._engines[new.engine_id] = new
        old.note_replaced()
        self._retire_later(old)

    def _give_name_back(self, old: Engine, new: Engine) -> None:
        """Tell those who follow the name again in what state its engine is."""
        new.note_replaced()
        if self._is_current(old):
            self.observer.events.publish("engine.state", engine_id=old.engine_id, state=old.state)

    def remove(self, engine_id: str) -> asyncio.Task[None]:
        """Forget an engine at once; its running requests finish, then its worker ends. A load under way is given up.

        Returns the task that waits for that. It is the registry's own: awaiting it is optional, and whoever does
        shields it.

        Raises:
            EngineNotFound: there is no such engine.
        """
        engine = self.get(engine_id)
        del self._engines[engine_id]
        self.observer.forget(engine_id)
        if engine.kept:
            self._save()
        return self._retire_later(engine)

    # --- using ---

    async def acquire(self, model: str | None) -> Engine:
        """The engine a request names, loaded. Call `generate` on it before the next await.

        Without a name: the configured default engine, else the only or first one.

        Raises:
            NotFound: there is no such engine, or none at all.
            LoadFailed: it was not loaded, and loading failed.
            InsufficientMemory: it was not loaded, and there is no memory for it.
        """
        while True:
            engine = self._named(model)
            await self.load_scheduler.admission.wait(engine)
            if not self._is_current(engine):
                continue
            try:
                await engine.ensure_ready()
            except NotFound:
                if self._closed:  # it waited for a load that was given up
                    raise Draining("The server is shutting down") from None
                if self._is_current(engine) or engine.engine_id not in self._engines:
                    raise
            if self._is_current(engine):
                return engine

    def _named(self, model: str | None) -> Engine:
        self._check_open()
        name = model or self.default_engine or next(iter(self._engines), None)
        if name is None:
            raise NotFound("No engine has been added yet: add one with POST /engines")
        engine = self._engines.get(name)
        if engine is None:
            raise NotFound(f"Model '{name}' not found or could not be loaded")
        return engine

    def _is_current(self, engine: Engine) -> bool:
        """Whether it was not replaced or removed."""
        return self._engines.get(engine.engine_id) is engine

    async def load(self, engine_id: str) -> Engine:
        """Load an engine now, also one that was given up after it had died too often.

        Raises:
            EngineNotFound: there is none.
            LoadFailed: the model cannot be loaded.
            InsufficientMemory: there is no memory for it.
        """
        self._check_open()
        self.get(engine_id).reset_breaker()
        return await self.acquire(engine_id)

    async def unload(self, engine_id: str, *, limit_s: float) -> Engine:
        """Free an engine's memory and keep its name; the next request loads it again.

        Its running requests get `limit_s` seconds; new ones wait meanwhile. A load under way is given up at once.

        Raises:
            EngineNotFound: there is none.
            Conflict: its requests took longer; it stays loaded.
        """
        engine = self.get(engine_id)
        if engine.state is not EngineState.LOADING or engine.in_flight:
            with self.load_scheduler.admission.paused(engine):
                await self._wait_idle(engine, limit_s)
                await asyncio.shield(engine.unload())
        else:
            await asyncio.shield(engine.unload())
        return engine

    async def _wait_idle(self, engine: Engine, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.load_scheduler.wait_idle(engine)
        if engine.busy:
            raise Conflict(
                f"Engine '{engine.engine_id}' still has {engine.in_flight} requests after {limit_s:g} seconds",
                param="engine_id",
                code="engine_busy",
            )

    # --- ending ---

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
        if self._engine_file is not None:
            await self._engine_file.flush()

    def _retire_later(self, engine: Engine) -> asyncio.Task[None]:
        task = asyncio.create_task(self._retire(engine), name=f"retire {engine.engine_id}")
        self._draining[task] = engine
        task.add_done_callback(self._draining.pop)
        return task

    async def _retire(self, engine: Engine) -> None:
        try:
            await engine.drain()
        finally:
            await engine.close()
            engine.logs.ring.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Draining("The server is shutting down")

    def _save(self) -> None:
        """Have the file say which engines come back after a restart of the daemon."""
        if self._engine_file is not None:
            kept = [StoredEngine(engine.config, engine.rules) for engine in self.list() if engine.kept]
            self._engine_file.save(kept)
