"""LoadScheduler: which engines have workers, and how one more gets the memory it needs.

Carries out what `policy` decides: it accounts for what each engine holds, lets loads wait for their turn in order, ends idle
engines for them or when their time is over, and pauses requests where a load would otherwise wait for ever. Used on the event
loop only. Starts no worker, which is the engine's, and knows no names, which are the registry's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kolosal.config.engines import EngineSettings
from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.memory.accounting import ManagedEngine, MemoryAccounting
from kolosal.engines.memory.admission import Changes, RequestAdmission, wait_for
from kolosal.engines.memory.fit import LoadPlan
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.out_of_memory import (
    RETRY_AFTER_S,
    no_memory,
    no_memory_in_time,
    nobody_waits,
    pinned_rival,
    ran_out_of_memory,
)
from kolosal.engines.memory.placement import Estimate
from kolosal.engines.memory.policy import (
    Bytes,
    Decision,
    Evict,
    Load,
    Refuse,
    Resident,
    Wait,
    crowded,
    expired,
    make_room,
    next_expiry,
    total,
)
from kolosal.engines.memory.sizing import Sizes, Sizing
from kolosal.engines.parameters import EngineConfig
from kolosal.errors import LoadFailed, ModelFileError, QueueFull

log = logging.getLogger(__name__)

MAX_WAITING_LOADS = 64
"""Loads that may wait for memory; more are refused."""

PAUSE_AFTER_S = 2.0
"""How long a load waits for busy engines to fall idle by themselves before they get no new requests."""

_RECOVERY_S = 2.0
"""How long a driver may take to give back the memory of a process that has ended."""
_RECOVERY_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen if an engine were loaded now."""

    plan: LoadPlan
    """How it would be loaded; where there is no memory for it, what it wants."""
    least: Estimate
    """What it takes with the smallest KV cache that it works with."""
    memory: MachineMemory
    free: Bytes
    """What a load may take, after what other engines have or will take."""
    decision: Decision
    unloads: tuple[str, ...]
    """Ids of the engines that would have to go."""


class LoadScheduler:
    """The memory of a machine, shared by the engines in it."""

    def __init__(
        self, settings: EngineSettings, sizes: Sizes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` is in seconds and never jumps back."""
        self.settings = settings
        self.pause_after_s = PAUSE_AFTER_S
        self._sizes = sizes
        self._clock = clock
        self._accounting = MemoryAccounting(settings, clock)
        self._changes = Changes()
        self.admission = RequestAdmission(self._changes)
        """Which engines get no new requests for a while."""
        self._waiting: list[ManagedEngine] = []
        """Loads that wait for memory, the first in front."""
        self._without_evicting: dict[ManagedEngine, ManagedEngine] = {}
        """New engine → the one it is to replace, which it must not push out."""

    def estimate_of(self, engine: ManagedEngine) -> Estimate | None:
        """What an engine holds by estimate; None where it has no worker."""
        entry = self._accounting.get(engine)
        return None if entry is None else entry.estimate

    # --- loading ---

    @contextlib.asynccontextmanager
    async def reserve(self, engine: ManagedEngine, config: EngineConfig) -> AsyncIterator[LoadPlan]:
        """Wait for an engine's turn and for its memory, which is set aside until the load fails within this or `release` is called.

        Idle engines are ended for it, busy ones waited for. Gives how to load it: what `config` leaves open is chosen by what there
        is memory for. A load that runs out of memory all the same ends with `InsufficientMemory`.

        Raises:
            InsufficientMemory: there is no memory, or there was none in time, or nobody waits for the load any more.
            QueueFull: too many loads wait already.
            LoadFailed: the model's files are damaged.
        """
        if len(self._waiting) >= MAX_WAITING_LOADS:
            raise QueueFull(
                f"{len(self._waiting)} engines wait to be loaded, as many as may", retry_after_s=RETRY_AFTER_S
            )
        try:
            sizing = await self._sizes.of(config, await self._sizes.memory())
        except ModelFileError as exc:
            raise LoadFailed(exc.message) from exc
        plan = await self._wait_for_turn(engine, sizing)
        _log_plan(engine, plan)
        try:
            yield plan
        except BaseException as exc:
            self.release(engine)
            if isinstance(exc, LoadFailed) and exc.lacked_memory:
                raise ran_out_of_memory(engine, exc) from exc
            raise

    def loaded(self, engine: ManagedEngine, info: EngineInfo) -> None:
        """Note that an engine's worker is ready, and what it got."""
        self._accounting.loaded(engine, info)
        self.note_use(engine)

    def release(self, engine: ManagedEngine) -> None:
        """Note that an engine's worker is gone, and with it what it held. Idempotent."""
        self._accounting.remove(engine)
        self._changes.notify()

    def note_use(self, engine: ManagedEngine) -> None:
        """Note that an engine was used, or may have become idle: its time to be idle begins."""
        self._accounting.note_use(engine)
        self._changes.notify()

    def note_rules(self) -> None:
        """The rules of an engine are others: what waits looks again."""
        self._changes.notify()

    @contextlib.contextmanager
    def without_evicting(self, new: ManagedEngine, old: ManagedEngine) -> Iterator[None]:
        """Within this, `new` gets memory only where `old` can stay, and is refused at once where it cannot."""
        self._without_evicting[new] = old
        try:
            yield
        finally:
            del self._without_evicting[new]

    async def preview(self, config: EngineConfig, engine: ManagedEngine | None = None) -> Preview:
        """What an engine would need, and whether there is memory for it. Loads and changes nothing.

        Raises:
            ModelFileError: its files are damaged.
        """
        memory = await self._sizes.memory()
        sizing = await self._sizes.of(config, memory)
        free = self._accounting.free(memory, without=engine)
        groups = frozenset[str]() if engine is None else engine.groups
        residents = self._accounting.residents(without=engine)
        plans = self._plans(sizing, free, residents)
        decision = make_room(_needs(plans), free, residents, groups)
        unloads = decision.names if isinstance(decision, Evict | Wait) else ()
        room = free + total(one.held for one in residents if one.name in unloads)
        plan = next((sizing.grown(each, room) for each in plans if each.need.fits(room)), plans[0])
        return Preview(
            plan,
            plans[-1].estimate,
            memory,
            free,
            decision,
            tuple(self._accounting.engine(number).engine_id for number in unloads),
        )

    async def _wait_for_turn(self, engine: ManagedEngine, sizing: Sizing) -> LoadPlan:
        """Reserve one of the amounts once all loads that came before have theirs."""
        self._waiting.append(engine)
        try:
            async with asyncio.timeout(self.settings.room_wait_s):
                return await self._wait_for_memory(engine, sizing)
        except TimeoutError:
            least = sizing.plans(self._accounting.free(await self._sizes.memory()))[-1]
            raise no_memory_in_time(engine, least.estimate, self.settings.room_wait_s) from None
        finally:
            self._waiting.remove(engine)
            self._changes.notify()

    async def _wait_for_memory(self, engine: ManagedEngine, sizing: Sizing) -> LoadPlan:
        pause_at = self._clock() + self.pause_after_s
        settle_at = self._clock() + self.settings.room_wait_s / 2
        paused: list[ManagedEngine] = []
        try:
            while True:
                change = self._changes.next
                busy: list[ManagedEngine] = []
                if self._waiting[0] is engine:
                    reserved = await self._try_reserve(engine, sizing, settles=self._clock() >= settle_at)
                    if isinstance(reserved, LoadPlan):
                        return reserved
                    busy = reserved
                now = self._clock()
                if now >= pause_at:
                    self.admission.pause(busy)  # before the others are resumed: most are the same
                    self.admission.resume(paused)
                    paused = busy
                left_s = min((at - now for at in (pause_at, settle_at) if at > now), default=None)
                await wait_for(change, left_s)
        finally:
            self.admission.resume(paused)

    async def _try_reserve(
        self, engine: ManagedEngine, sizing: Sizing, *, settles: bool
    ) -> LoadPlan | list[ManagedEngine]:
        """Reserve memory where there is enough, or can be made; otherwise the busy engines whose end would make it.

        `settles`: take what there is now, also where an engine that is busy leaves less than it could be.
        """
        while True:
            memory = await self._sizes.memory()
            if not engine.busy:
                raise nobody_waits(engine)
            free = self._accounting.free(memory)
            checks, replaced = self.settings.memory_check, self._without_evicting.get(engine)
            residents = self._accounting.residents(protecting=replaced)
            plans = self._plans(sizing, free, residents) if checks else sizing.plans(free)
            if checks and not settles and replaced is None:
                best = sizing.plans(free + total(one.held for one in residents if not one.pinned))
                waits = make_room(_needs(best), free, residents, engine.groups)
                if best[0].rank < plans[0].rank and isinstance(waits, Wait):
                    return [self._accounting.engine(name) for name in waits.names]
            match make_room(_needs(plans) if checks else [Bytes()], free, residents, engine.groups):
                case Load():
                    fitting = next((each for each in plans if each.need.fits(free)), plans[0])
                    return self._accounting.reserve(engine, sizing.grown(fitting, free), sizing)
                case Refuse(rivals=rivals) if rivals:
                    raise pinned_rival(engine, self._accounting.engine(rivals[0]))
                case Evict(names=names):
                    await self._evict(names, _needs(plans))
                case Wait(names=names) if replaced is None:
                    return [self._accounting.engine(name) for name in names]
                case Wait() | Refuse():
                    raise no_memory(engine, plans[-1].estimate, free)

    def _plans(self, sizing: Sizing, free: Bytes, residents: Sequence[Resident]) -> tuple[LoadPlan, ...]:
        """What an engine can live with once idle engines have ended, without that where it would be no faster then."""
        now = sizing.plans(free)
        best = sizing.plans(free + total(one.held for one in residents if one.evictable))
        return now if now[0].rank == best[0].rank and now[0].need.fits(free) else best

    async def retry(self, engine: ManagedEngine, error: LoadFailed) -> LoadPlan | None:
        """How to try again where a load failed because memory was short: once every engine has ended that may, and then with less.
        None where that makes no sense."""
        entry = self._accounting.get(engine)
        if not error.lacked_memory or entry is None:
            return None
        if names := [one.name for one in self._accounting.residents() if one.evictable]:
            await _all_of(self._unload(names, "out of memory"))
            return entry.plan
        smaller = entry.sizing.smaller(entry.plan)
        if smaller is None:
            return None
        _log_plan(engine, smaller)
        return self._accounting.reserve(engine, smaller, entry.sizing)

    # --- unloading ---

    def expires_in_s(self, engine: ManagedEngine) -> float | None:
        """Seconds until an idle engine is unloaded; None where it is not loaded, busy, or stays."""
        return self._accounting.expires_in_s(engine)

    async def reap_idle(self) -> None:
        """Unload engines whose time is over, until cancelled."""
        while True:
            change = self._changes.next
            self.reap_expired()
            expiry = next_expiry(self._accounting.residents())
            await wait_for(change, None if expiry is None else max(0.01, expiry - self._clock()))

    def reap_expired(self) -> list[asyncio.Future[None]]:
        """Begin to unload the engines whose time is over, or that are not to be beside others; what ends when they are gone."""
        residents = self._accounting.residents()
        return [
            *self._unload(expired(residents, self._clock()), "idle"),
            *self._unload(crowded(residents), "exclusive group"),
        ]

    async def wait_idle(self, engine: ManagedEngine) -> None:
        """Wait until nobody uses an engine."""
        while engine.busy:
            await self._changes.next.wait()

    async def _evict(self, names: Sequence[int], needs: Sequence[Bytes]) -> None:
        """End engines, and wait until their memory can be seen to be free."""
        on_gpu = any(one.held.gpus for one in self._accounting.residents() if one.name in names)
        await _all_of(self._unload(names, "memory"))
        give_up_at = self._clock() + _RECOVERY_S
        while on_gpu and self._clock() < give_up_at:
            free = self._accounting.free(await self._sizes.memory())
            if any(need.fits(free) for need in needs):
                return
            await asyncio.sleep(_RECOVERY_STEP_S)

    def _unload(self, names: Sequence[int], reason: str) -> list[asyncio.Future[None]]:
        engines = [self._accounting.engine(name) for name in names]
        for engine in engines:
            log.info("engine.evicted", extra={"engine_id": engine.engine_id, "reason": reason})
        return [engine.unload() for engine in engines]


def _needs(plans: Iterable[LoadPlan]) -> list[Bytes]:
    return [plan.need for plan in plans]


def _log_plan(engine: ManagedEngine, plan: LoadPlan) -> None:
    if plan.choices:
        chosen = {choice.field: choice.value for choice in plan.choices}
        reason = "; ".join(choice.reason for choice in plan.choices)
        log.info("engine.fitted", extra={"engine_id": engine.engine_id, **chosen, "reason": reason})


async def _all_of(futures: Iterable[asyncio.Future[None]]) -> None:
    """Wait for all, and leave them alone when this is cancelled."""
    if waiting := list(futures):
        await asyncio.wait(waiting)
