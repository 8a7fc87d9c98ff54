"""MemoryAccounting: which engines have memory, how much by estimate, and what that leaves for others.

Owns one entry for each engine that has a worker or may start one. Asks engines whether they are busy, and nobody else anything:
what the machine has is an argument. Used on the event loop only.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from kolosal.config.engines import EngineSettings
from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.memory.fit import LoadPlan
from kolosal.engines.memory.limits import HOST_RESERVE_BYTES
from kolosal.engines.memory.machine import MachineMemory
from kolosal.engines.memory.placement import Estimate
from kolosal.engines.memory.policy import Bytes, Resident, Rules, next_expiry, total
from kolosal.engines.memory.sizing import Sizing
from kolosal.engines.state import EngineState


class ManagedEngine(Protocol):
    """What memory management knows of an engine, and may do to it."""

    engine_id: str
    rules: Rules
    groups: frozenset[str]
    """Exclusive groups that it is of."""

    @property
    def state(self) -> EngineState: ...

    @property
    def busy(self) -> bool:
        """Whether anybody uses it, or is about to: then it stays in memory."""
        ...

    @property
    def released_bytes(self) -> int:
        """Host memory that its worker may still fill without asking, though the system counts it as free."""
        ...

    @property
    def repacked_bytes(self) -> int:
        """Of the weights that are mapped from the file: what its worker has copied, so that the system sees it as taken."""
        ...

    @property
    def idle_limit_s(self) -> float | None:
        """Seconds it stays in memory once it is idle; None: until its memory is needed."""
        ...

    def unload(self) -> asyncio.Future[None]:
        """Begin to end its worker; returns what ends when the memory is free. Idempotent."""
        ...


@dataclass(slots=True, eq=False)
class Entry:
    """An engine that has a worker, or may start one now."""

    number: int
    engine: ManagedEngine
    plan: LoadPlan
    estimate: Estimate
    sizing: Sizing
    last_used: float
    """On the clock of the accounting."""
    loading: bool = True
    """Whether the system does not see yet what it takes."""


class MemoryAccounting:
    """The entries of all engines in memory."""

    def __init__(self, settings: EngineSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._numbers = itertools.count(1)
        self._entries: dict[ManagedEngine, Entry] = {}

    def get(self, engine: ManagedEngine) -> Entry | None:
        """The entry of an engine that has one."""
        return self._entries.get(engine)

    def engine(self, number: int) -> ManagedEngine:
        """The engine of an entry, by the name that the policy knows it by."""
        return next(entry.engine for entry in self._entries.values() if entry.number == number)

    def reserve(self, engine: ManagedEngine, plan: LoadPlan, sizing: Sizing) -> LoadPlan:
        """Set memory aside for an engine that is about to load."""
        self._entries[engine] = Entry(next(self._numbers), engine, plan, plan.estimate, sizing, self._clock())
        return plan

    def loaded(self, engine: ManagedEngine, info: EngineInfo) -> None:
        """It is loaded: count what it got in place of what was set aside."""
        if entry := self._entries.get(engine):
            entry.estimate, entry.loading = entry.sizing.actual(entry.plan, info), False

    def remove(self, engine: ManagedEngine) -> None:
        """Its worker is gone, or was never there."""
        self._entries.pop(engine, None)

    def note_use(self, engine: ManagedEngine) -> None:
        """It was used just now. Engines without an entry are ignored."""
        entry = self._entries.get(engine)
        if entry is not None:
            entry.last_used = self._clock()

    def expires_in_s(self, engine: ManagedEngine) -> float | None:
        """Seconds until an idle engine is unloaded; None where it has no entry, is busy, or stays."""
        entry = self._entries.get(engine)
        expiry = None if entry is None else next_expiry([self._resident(entry)])
        return None if expiry is None else max(0.0, expiry - self._clock())

    def residents(
        self, *, without: ManagedEngine | None = None, protecting: ManagedEngine | None = None
    ) -> list[Resident]:
        """All entries as the policy sees them, but for one; one may be kept as if it were pinned, and were of no group."""
        return [
            replace(self._resident(entry), pinned=True, groups=frozenset())
            if entry.engine is protecting
            else self._resident(entry)
            for entry in self._entries.values()
            if entry.engine is not without
        ]

    def free(self, memory: MachineMemory, *, without: ManagedEngine | None = None) -> Bytes:
        """What a load may take: of what the system says is free, less what others will still take of it.

        The system does not see what a loading engine will take. It counts weights that are mapped from files as free,
        although the engine that uses them is slow without them, and cells of a KV cache that were never used, although
        nobody is asked before they are. `without` counts as if it were not loaded.
        """
        entries = [*self._entries.values()]
        hidden = total(_hidden(entry) for entry in entries)
        free = memory.free - Bytes(HOST_RESERVE_BYTES) - hidden
        if self._settings.memory_limit_bytes:
            allowed = self._settings.memory_limit_bytes - sum(entry.estimate.host.total for entry in entries)
            free = replace(free, host=min(free.host, allowed))
        return free + total(entry.estimate.need for entry in entries if entry.engine is without)

    def _resident(self, entry: Entry) -> Resident:
        engine = entry.engine
        return Resident(
            entry.number,
            entry.estimate.need,
            entry.last_used,
            busy=engine.busy or engine.state is not EngineState.READY,
            pinned=engine.rules.pin,
            limit_s=engine.idle_limit_s,
            groups=engine.groups,
        )


def _hidden(entry: Entry) -> Bytes:
    """What an engine takes, or may take unasked, of what the system counts as free."""
    if entry.loading:
        return entry.estimate.need
    released = min(entry.engine.released_bytes, entry.estimate.host.kv_cache)
    mapped = max(0, entry.estimate.mapped - entry.engine.repacked_bytes)
    return Bytes(mapped + released)
