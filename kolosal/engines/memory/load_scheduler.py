"""LoadScheduler: which engines have workers, and how one more gets the memory it needs.

Carries out what `policy` decides: it keeps the books of what each engine holds, lets loads wait for their turn in order, ends
idle engines for them or when their time is over, and holds new requests back where a load would otherwise wait for ever.
Used on the event loop only. Knows no names: engines are the registry's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.messages import EngineInfo, FromWorker
from kolosal.engines.ipc.process import WorkerCommand, WorkerProcess
from kolosal.engines.memory.accounting import Entry, MemoryAccounting
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.placement import Estimate
from kolosal.engines.memory.policy import (
    Bytes,
    Decision,
    Evict,
    Load,
    Refuse,
    Rules,
    Wait,
    expired,
    make_room,
    next_expiry,
)
from kolosal.engines.memory.shortage import (
    RETRY_AFTER_S,
    lacked_memory,
    no_room,
    no_room_in_time,
    nobody_waits,
    short_of_memory,
)
from kolosal.engines.memory.sizing import Sizes, Sizing
from kolosal.engines.parameters import EngineConfig
from kolosal.errors import LoadFailed, ModelFileError, QueueFull

log = logging.getLogger(__name__)

_RECOVERY_S = 2.0
"""How long a driver may take to give back the memory of a process that has ended."""
_RECOVERY_STEP_S = 0.1

MAX_WAITING_LOADS = 64
"""Loads that may wait for room; more are refused."""

_PATIENCE_S = 2.0
"""How long a load waits for busy engines to fall idle by themselves before they get no new requests."""

Start: TypeAlias = Callable[[EngineConfig], Awaitable[tuple[WorkerProcess, EngineInfo]]]


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen if an engine were loaded now."""

    choices: tuple[Estimate, ...]
    """The amounts it can live with, the best first."""
    memory: MachineMemory
    free: Bytes
    """What a load may take, after what other engines have or will take."""
    decision: Decision
    unloads: tuple[str, ...]
    """Ids of the engines that would have to go."""


class LoadScheduler:
    """The memory of a machine, shared by the engines in it."""

    def __init__(
        self,
        command: WorkerCommand,
        sizes: Sizes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = command.settings
        self.patience_s = _PATIENCE_S
        self._command = command
        self._sizes = sizes
        self._clock = clock
        self._accounting = MemoryAccounting(command.settings, clock)
        self._waiting: list[Engine] = []
        """Loads that wait for room, the first in front."""
        self._paused: list[Engine] = []
        """Engines that get no new requests for a while; twice in the list where two have reasons."""
        self._without_evicting: dict[Engine, Engine] = {}
        """New engine → the one it is to replace, which it must not push out."""
        self._changed = asyncio.Event()

    def engine(self, config: EngineConfig, rules: Rules, max_queued: int) -> Engine:
        """A new engine whose workers are started here."""

        async def launch(
            config: EngineConfig,
            *,
            on_progress: Callable[[float], None],
            on_frame: Callable[[FromWorker], None],
            on_exit: Callable[[str], None],
            on_stderr: Callable[[bytes], None],
        ) -> tuple[WorkerProcess, EngineInfo]:
            def exited(reason: str) -> None:
                self._release(engine)
                on_exit(reason)

            start = partial(
                WorkerProcess.launch,
                self._command,
                on_progress=on_progress,
                on_frame=on_frame,
                on_exit=exited,
                on_stderr=on_stderr,
            )
            return await self._launch(engine, config, start)

        engine = Engine(config, self._command, max_queued, rules=rules, launcher=launch)
        engine.on_change = partial(self._note_use, engine)
        return engine

    def estimate_of(self, engine: Engine) -> Estimate | None:
        """What an engine holds by our books; None where it has no worker."""
        entry = self._accounting.get(engine)
        return None if entry is None else entry.estimate

    def expires_in_s(self, engine: Engine) -> float | None:
        """Seconds until an idle engine is unloaded; None where it is not loaded, busy, or stays."""
        return self._accounting.expires_in_s(engine)

    # --- idle engines ---

    async def reap_idle(self) -> None:
        """Unload engines whose time is over, until cancelled."""
        while True:
            changed = self._changed
            self.reap_expired()
            expiry = next_expiry(self._accounting.residents())
            await _wait_for_change(changed, None if expiry is None else max(0.01, expiry - self._clock()))

    def reap_expired(self) -> list[asyncio.Future[None]]:
        """Begin to unload the engines whose time is over; what ends when they are gone."""
        return self._unload(expired(self._accounting.residents(), self._clock()), "idle")

    # --- holding requests back ---

    async def wait_admission(self, engine: Engine) -> None:
        """Wait while an engine gets no new requests. Every hold has an end."""
        while engine in self._paused:
            await self._changed.wait()

    @contextlib.contextmanager
    def pause_admission(self, *engines: Engine) -> Iterator[None]:
        """Within this, engines get no new requests, so that they fall idle."""
        self._paused += engines
        try:
            yield
        finally:
            self._resume_admission(engines)

    def _resume_admission(self, engines: Iterable[Engine]) -> None:
        for engine in engines:
            self._paused.remove(engine)
            if engine not in self._paused:
                self._notify()

    async def wait_idle(self, engine: Engine) -> None:
        """Wait until nobody uses an engine."""
        while engine.busy:
            await self._changed.wait()

    @contextlib.contextmanager
    def without_evicting(self, new: Engine, old: Engine) -> Iterator[None]:
        """Within this, `new` finds room only where `old` can stay, and is refused at once where it cannot."""
        self._without_evicting[new] = old
        try:
            yield
        finally:
            del self._without_evicting[new]

    # --- loading ---

    async def preview(self, config: EngineConfig, engine: Engine | None = None) -> Preview:
        """What an engine would need, and whether there is room for it. Loads and changes nothing.

        Raises:
            ModelFileError: its files are damaged.
        """
        memory = await self._sizes.memory()
        sizing = await self._sizes.of(config, memory)
        free = self._accounting.free(memory, without=engine)
        decision = make_room(_needs(sizing.choices), free, self._accounting.residents(without=engine))
        going = decision.names if isinstance(decision, Evict | Wait) else ()
        return Preview(
            sizing.choices,
            memory,
            free,
            decision,
            tuple(self._accounting.engine(number).engine_id for number in going),
        )

    async def _launch(
        self, engine: Engine, config: EngineConfig, start: Start
    ) -> tuple[WorkerProcess, EngineInfo]:
        """Start a worker once there is room. Where memory was short all the same, try once more without idle engines."""
        entry, sizing = await self._enter(engine, config)
        config = _with_cells(config, entry.estimate.cells, sizing.choices[0].cells)
        try:
            try:
                worker, info = await start(config)
            except LoadFailed as exc:
                if not lacked_memory(exc):
                    raise
                if not await self._evict_idle():
                    raise short_of_memory(engine, exc) from exc
                worker, info = await self._start_again(engine, config, start)
        except BaseException:
            self._release(engine)
            raise
        entry.loading = False
        entry.estimate = sizing.actual(info)
        self._note_use(engine)
        return worker, info

    async def _start_again(
        self, engine: Engine, config: EngineConfig, start: Start
    ) -> tuple[WorkerProcess, EngineInfo]:
        try:
            return await start(config)
        except LoadFailed as exc:
            if lacked_memory(exc):
                raise short_of_memory(engine, exc) from exc
            raise

    async def _enter(self, engine: Engine, config: EngineConfig) -> tuple[Entry, Sizing]:
        """Wait for room, in order, and enter the engine into the books.

        Raises:
            InsufficientMemory: there is no room, or there was none in time, or nobody waits for the load any more.
            QueueFull: too many loads wait already.
            LoadFailed: the model's files are damaged.
        """
        if len(self._waiting) >= MAX_WAITING_LOADS:
            raise QueueFull(
                f"{len(self._waiting)} engines wait to be loaded, as many as may",
                retry_after_s=RETRY_AFTER_S,
            )
        try:
            sizing = await self._sizes.of(config, await self._sizes.memory())
        except ModelFileError as exc:
            raise LoadFailed(exc.message) from exc
        self._waiting.append(engine)
        try:
            async with asyncio.timeout(self.settings.room_wait_s):
                return await self._wait_for_room(engine, sizing.choices), sizing
        except TimeoutError:
            raise no_room_in_time(engine, sizing.choices[-1], self.settings.room_wait_s) from None
        finally:
            self._waiting.remove(engine)
            self._notify()

    async def _wait_for_room(self, engine: Engine, choices: Sequence[Estimate]) -> Entry:
        patient_until = self._clock() + self.patience_s
        holding: list[Engine] = []
        try:
            while True:
                changed = self._changed
                busy: list[Engine] = []
                if self._waiting[0] is engine:
                    step = await self._try(engine, choices)
                    if isinstance(step, Entry):
                        return step
                    busy = step
                left_s = patient_until - self._clock()
                if left_s <= 0:
                    self._paused += busy  # before the others are let go: most are the same
                    self._resume_admission(holding)
                    holding = busy
                await _wait_for_change(changed, left_s if left_s > 0 else None)
        finally:
            self._resume_admission(holding)

    async def _try(self, engine: Engine, choices: Sequence[Estimate]) -> Entry | list[Engine]:
        """Enter the engine where there is room, or can be made; otherwise the busy engines whose end would make some."""
        while True:
            memory = await self._sizes.memory()
            if not engine.busy:
                raise nobody_waits(engine)
            if not self.settings.memory_check:
                return self._accounting.enter(engine, choices[0])
            free = self._accounting.free(memory)
            match make_room(
                _needs(choices),
                free,
                self._accounting.residents(protecting=self._without_evicting.get(engine)),
            ):
                case Load():
                    fitting = next(choice for choice in choices if choice.need.fits(free))
                    return self._accounting.enter(engine, fitting)
                case Evict(names=names):
                    await self._evict(names, choices)
                case Wait(names=names) if engine not in self._without_evicting:
                    return [self._accounting.engine(name) for name in names]
                case Wait() | Refuse():
                    raise no_room(engine, choices[-1], free)

    # --- unloading ---

    async def _evict(self, names: Sequence[int], choices: Sequence[Estimate]) -> None:
        """End engines, and wait until their memory can be seen to be free."""
        held = any(one.held.gpus for one in self._accounting.residents() if one.name in names)
        await _all_of(self._unload(names, "room"))
        give_up_at = self._clock() + _RECOVERY_S
        while held and self._clock() < give_up_at:
            free = self._accounting.free(await self._sizes.memory())
            if any(choice.need.fits(free) for choice in choices):
                return
            await asyncio.sleep(_RECOVERY_STEP_S)

    async def _evict_idle(self) -> bool:
        """End every engine that may be; whether there was one."""
        names = [one.name for one in self._accounting.residents() if one.evictable]
        await _all_of(self._unload(names, "out of memory"))
        return bool(names)

    def _unload(self, names: Sequence[int], reason: str) -> list[asyncio.Future[None]]:
        engines = [self._accounting.engine(name) for name in names]
        for engine in engines:
            log.info("engine.evicted", extra={"engine_id": engine.engine_id, "reason": reason})
        return [engine.unload() for engine in engines]

    # --- changes ---

    def _note_use(self, engine: Engine) -> None:
        self._accounting.touch(engine)
        self._notify()

    def _release(self, engine: Engine) -> None:
        self._accounting.remove(engine)
        self._notify()

    def _notify(self) -> None:
        """Wake all who wait for something here."""
        self._changed.set()
        self._changed = asyncio.Event()


def _with_cells(config: EngineConfig, cells: int, wanted: int) -> EngineConfig:
    """Told how many cells there is room for, where it is fewer than it would take."""
    if cells == wanted:
        return config
    return replace(config, parameters=replace(config.parameters, kv_pool_tokens=cells))


def _needs(choices: Iterable[Estimate]) -> list[Bytes]:
    return [choice.need for choice in choices]


async def _all_of(futures: Iterable[asyncio.Future[None]]) -> None:
    """Wait for all, and leave them alone when this is cancelled."""
    if waiting := list(futures):
        await asyncio.wait(waiting)


async def _wait_for_change(changed: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for the next change, or for a time. Not `wait_for`, which before Python 3.12 can lose a cancellation."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await changed.wait()
