"""EngineRegistry: names → engines.

Owns the set of engines and the background tasks that drain removed ones. The only place that adds, replaces or removes an
engine. Listing never touches an engine: it loads nothing and resets no timer. Which engines have memory is the load scheduler's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.spare import SpareWorker
from kolosal.engines.ipc.workers import Nowhere, OnThisMachine, WorkerLauncher
from kolosal.engines.memory.load_scheduler import LoadScheduler
from kolosal.engines.memory.policy import DEFAULT_RULES, Rules
from kolosal.engines.memory.sizing import NoSizes, Sizes
from kolosal.engines.names import did_you_mean, plain
from kolosal.engines.parameters import (
    LATEST,
    MAX_ENGINE_ID_CHARS,
    EngineConfig,
    KnownModels,
    NothingKnown,
    Placement,
)
from kolosal.engines.persist import EngineFile, StoredEngine
from kolosal.engines.state import EngineState
from kolosal.errors import Conflict, Draining, EngineNotFound, InsufficientMemory, NotFound
from kolosal.observe.context import note_model
from kolosal.observe.observer import Observer

log = logging.getLogger(__name__)


_NO_CLUSTER = (
    "placement is 'ray', and this daemon has joined no cluster: `kolosal serve --cluster ADDRESS` does"
)


class UnloadedModels(Protocol):
    """Knows models that are no engines yet. What the registry needs of the library, which is above it."""

    def find(self, name: str) -> str | None:
        """What the model that a name means is called as an engine; None where it means none, as far as is known."""

    async def engine_for(self, name: str) -> tuple[EngineConfig, Rules] | None:
        """What makes the model of that name an engine; None where it means none.

        Raises:
            ModelFileError: there is such a model, and it cannot be loaded.
            LoadFailed: likewise.
        """

    @property
    def names(self) -> Mapping[str, str]:
        """What they are called, by the plain form of each name."""


@dataclass(frozen=True, slots=True)
class EngineHost:
    """A place for engines."""

    launcher: WorkerLauncher
    load_scheduler: LoadScheduler


class EngineRegistry:
    """All engines of a daemon, by id. Used on the event loop only."""

    def __init__(
        self,
        command: WorkerCommand,
        *,
        default_engine: str | None = None,
        sizes: Sizes | None = None,
        engine_file: EngineFile | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.default_engine = default_engine
        """The engine used where a request may leave the name out, as configured."""
        self._command = command
        self.load_scheduler = LoadScheduler(command.settings, sizes or NoSizes(), clock)
        """Which engines are in this machine's memory."""
        self.hosts = {
            Placement.LOCAL: EngineHost(
                OnThisMachine(SpareWorker() if command.settings.spare_worker else None), self.load_scheduler
            ),
            Placement.RAY: EngineHost(
                Nowhere(_NO_CLUSTER), LoadScheduler(command.settings, NoSizes(), clock)
            ),
        }
        """Where engines are placed."""
        self.engine_file = engine_file
        """Where engines are that come back after a restart of the daemon, if anywhere."""
        self.unloaded_models: UnloadedModels | None = None
        """Where engines come from that a request names and nobody has added."""
        self._known: KnownModels = NothingKnown()
        self._engines: dict[str, Engine] = {}
        self._replacing: set[str] = set()
        self._draining: dict[asyncio.Task[None], Engine] = {}
        self._closed = False
        self.observer = Observer()
        """Where all engines tell what they do."""

    def list(self) -> list[Engine]:
        """All engines in the order they were added."""
        return [*self._engines.values()]

    def get(self, name: str) -> Engine:
        """The engine of a name, loaded or not.

        Raises:
            EngineNotFound: there is none.
        """
        engine = self.find(name)
        if engine is None:
            raise EngineNotFound(f"Engine not found{self.did_you_mean(name)}", param="engine_id")
        return engine

    @property
    def only_engine(self) -> str | None:
        """The name of the one that there is, or that is loaded; None where there are several."""
        loaded = [engine for engine in self.list() if engine.state is EngineState.READY]
        for engines in (self.list(), loaded):
            if len(engines) == 1:
                return engines[0].engine_id
        return None

    def find(self, name: str) -> Engine | None:
        """The engine that a name means, loaded or not: by its id, else by another name for it, else by what is said of models."""
        engine = self._by_id(name) or self._by_id(self._known.engine_id_of(name))
        return engine or self._made_of_another(self._known.engine_id_of(name))

    def _by_id(self, name: str) -> Engine | None:
        """By the exact id; else by it without what clients add, where only one engine can be meant; else by a model's other name."""
        exact = self._engines.get(name) or self._engines.get(name.strip().removesuffix(LATEST))
        if exact is not None:
            return exact
        key = plain(name)
        alike = [engine for engine_id, engine in self._engines.items() if plain(engine_id) == key]
        if len(alike) == 1:
            return alike[0]
        meant = None if self.unloaded_models is None else self.unloaded_models.find(name)
        return None if meant is None else self._engines.get(meant)

    def _made_of_another(self, engine_id: str) -> Engine | None:
        """An engine that nobody adds: it has another one's file, and parameters of its own."""
        root = self._known.root_of(engine_id)
        origin = None if root is None else self._by_id(root)
        if origin is None:
            return None
        engine = self._new_engine(replace(origin.asked, engine_id=engine_id, given=()), origin.rules)
        engine.root = origin.engine_id
        self._engines[engine_id] = engine
        return engine

    # --- what is said of models ---

    @property
    def known(self) -> KnownModels:
        """What is said of models: their other names, parameters and groups."""
        return self._known

    @known.setter
    def known(self, known: KnownModels) -> None:
        """Names and groups hold at once. Parameters do for engines that load from now on, see `outdated`."""
        self._known = known
        for engine in self.list():
            engine.groups = known.exclusive_groups_of(engine.engine_id)
            if engine.root is not None and known.root_of(engine.engine_id) is None:
                self._forget(engine)
            elif engine.state is EngineState.UNLOADED and not engine.busy:
                engine.config = known.config_of(engine.asked)
        for host in self.hosts.values():
            host.load_scheduler.note_rules()

    @property
    def outdated(self) -> Sequence[Engine]:
        """Engines that are loaded with other parameters than are said of their models now."""
        return [each for each in self.list() if each.config != self._known.config_of(each.asked)]

    async def renew(self, engine: Engine) -> None:
        """Have an engine as is said of its model now: in its place where it was added, else made anew by the next request.

        Raises as `replace`.
        """
        if engine.root is not None:
            self._forget(engine)
            return
        load = engine.state is not EngineState.UNLOADED
        await self.replace(engine.asked, load=load, rules=engine.rules, keep=engine.kept)

    def _forget(self, engine: Engine) -> asyncio.Task[None]:
        del self._engines[engine.engine_id]
        self.observer.forget(engine.engine_id)
        return self._retire_later(engine)

    def _forget_made_of(self, engine_id: str) -> None:
        """The next request makes them anew."""
        for engine in self.list():
            if engine.root == engine_id:
                self._forget(engine)

    # --- adding, replacing, removing ---

    def _new_engine(self, config: EngineConfig, rules: Rules) -> Engine:
        host = self.hosts[config.placement]
        engine = Engine(
            self._known.config_of(config),
            self._command,
            rules=rules,
            asked=config,
            load_scheduler=host.load_scheduler,
            launcher=host.launcher,
            observer=self.observer,
        )
        engine.groups = self._known.exclusive_groups_of(config.engine_id)
        return engine

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
        if (meant := self._known.engine_id_of(engine_id)) != engine_id:
            raise Conflict(
                f"Engine ID '{engine_id}' is another name of '{meant}' in models.yaml. Please choose a different engine ID.",
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
        old = self._engines.get(engine_id)
        if old is None:
            raise EngineNotFound("Engine not found", param="engine_id")
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
            with new.load_scheduler.without_evicting(new, old):
                await new.ensure_ready()
        except InsufficientMemory:
            if old.state is EngineState.UNLOADED:
                raise  # it has nothing to give
        else:
            self._take_over(old, new)
            return
        with old.load_scheduler.admission.paused(old):
            await self._wait_idle(old, self._command.settings.room_wait_s)
            await asyncio.shield(old.unload())
            await new.ensure_ready()
            self._take_over(old, new)

    def _take_over(self, old: Engine, new: Engine) -> None:
        self._check_open()
        if not self._is_current(old):
            raise EngineNotFound("Engine not found", param="engine_id")
        self._engines[new.engine_id] = new
        self._forget_made_of(old.engine_id)
        old.note_replaced()
        self._retire_later(old)

    def _give_name_back(self, old: Engine, new: Engine) -> None:
        """Tell those who follow the name again in what state its engine is."""
        new.note_replaced()
        if self._is_current(old):
            self.observer.events.publish("engine.state", engine_id=old.engine_id, state=old.state)

    def set_rules(self, engine_id: str, rules: Rules) -> None:
        """Change how long an engine stays in memory and how many requests may wait for it, from now on.

        Raises:
            EngineNotFound: there is no such engine.
        """
        engine = self.get(engine_id)
        engine.rules = rules
        engine.load_scheduler.note_rules()
        if engine.kept:
            self._save()

    def remove(self, engine_id: str) -> asyncio.Task[None]:
        """Forget an engine at once; its running requests finish, then its worker ends. A load under way is given up.

        Returns the task that waits for that. It is the registry's own: awaiting it is optional, and whoever does
        shields it.

        Raises:
            EngineNotFound: there is no such engine.
        """
        engine = self.get(engine_id)
        self._forget_made_of(engine.engine_id)
        ended = self._forget(engine)
        if engine.kept:
            self._save()
        return ended

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
            engine = await self.resolve(model)
            await engine.load_scheduler.admission.wait(engine)
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

    async def resolve(self, model: str | None) -> Engine:
        """The engine a request names, loaded or not. A model that is none yet becomes one, if it may.

        Without a name: the configured default engine, else the first one.

        Raises:
            NotFound: there is no such engine, or none at all.
            ModelFileError: there is such a model, and it cannot be loaded.
            LoadFailed: likewise.
        """
        self._check_open()
        name = model or self.default_engine or next(iter(self._engines), None)
        if name is None:
            raise NotFound("No engine has been added yet: add one with POST /engines")
        note_model(name)
        engine = self.find(name) or await self._added(name)
        if engine is None:
            raise NotFound(
                f"Model '{name[:MAX_ENGINE_ID_CHARS]}' not found or could not be loaded{self.did_you_mean(name)}"
            )
        return engine

    async def _added(self, name: str) -> Engine | None:
        """The engine of a model that was none, or of one that is said to be made of it."""
        if self.unloaded_models is None:
            return None
        engine_id = self._known.engine_id_of(name)
        found = await self.unloaded_models.engine_for(self._known.root_of(engine_id) or engine_id)
        if found is None:
            return None
        config, rules = found
        self._check_open()
        if self._by_id(config.engine_id) is None:  # nobody else has added it meanwhile
            engine = await self.add(config, load=False, rules=rules)
            engine.from_library = True
        return self.find(name) or self._by_id(config.engine_id)

    def did_you_mean(self, name: str) -> str:
        """The end of a sentence that says that a name is unknown: those most like it."""
        models = {} if self.unloaded_models is None else self.unloaded_models.names
        ids = {plain(engine_id): engine_id for engine_id in self._engines}
        return did_you_mean(name, {**models, **self._known.names, **ids})

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
            with engine.load_scheduler.admission.paused(engine):
                await self._wait_idle(engine, limit_s)
                await asyncio.shield(engine.unload())
        else:
            await asyncio.shield(engine.unload())
        return engine

    async def reap_idle(self) -> None:
        """Unload engines whose time is over, until cancelled."""
        await asyncio.gather(*(host.load_scheduler.reap_idle() for host in self.hosts.values()))

    async def _wait_idle(self, engine: Engine, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await engine.load_scheduler.wait_idle(engine)
        if engine.busy:
            raise Conflict(
                f"Engine '{engine.engine_id}' still has {engine.in_flight} requests after {limit_s:g} seconds",
                param="engine_id",
                code="engine_busy",
            )

    # --- ending ---

    async def close(self, *, drain_s: float) -> bool:
        """End all engines; whether the disk has those that are to come back.

        Running requests get `drain_s` seconds to finish, then fail. Idempotent.
        """
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
        for host in self.hosts.values():
            await host.launcher.close()
        return self.engine_file is None or await self.engine_file.close()

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
        if self.engine_file is not None:
            kept = [StoredEngine(engine.asked, engine.rules) for engine in self.list() if engine.kept]
            self.engine_file.save(kept)
