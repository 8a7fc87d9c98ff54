"""Which engines stay in memory: pure decisions on given facts and a given time.

Owns the rules: idle engines end after their time; for one that must load idle ones are evicted, the least recently used first
(LRU); a busy one is never ended, a pinned one never. Knows no clock, no process and no device: `load_scheduler` carries out what
is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from pydantic import ConfigDict, Field

from kolosal.config.engines import MAX_QUEUED_LIMIT, MAX_TTL_S
from kolosal.engines.parameters import ReplicasGiven

IdleTtlS: TypeAlias = Annotated[float, Field(ge=0, le=MAX_TTL_S, allow_inf_nan=False)]
DefaultMaxTokens: TypeAlias = Annotated[int, Field(ge=-1, le=1_000_000)]
QueueLimit: TypeAlias = Annotated[int, Field(ge=0, le=MAX_QUEUED_LIMIT)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the owner of an engine wants of its stay in memory."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    idle_ttl_s: IdleTtlS | None = None
    """Seconds without a request after which it is unloaded; 0 never, None as the daemon's setting says."""
    pin: bool = False
    """Never unloaded by the daemon itself, neither for its idleness nor for another engine."""
    max_queued: QueueLimit | None = None
    """Requests that may wait beyond those that run; None as the daemon's setting says."""
    default_max_tokens: DefaultMaxTokens | None = None
    """`max_tokens` of chat completions that give none; -1 is to the end of the window, None as the daemon's setting says."""
    replicas: ReplicasGiven | None = None
    """How many workers it has, where it is placed in a cluster; None is one."""


DEFAULT_RULES = Rules()


def idle_limit(rules: Rules, keep_alive_s: float | None, default_s: float) -> float | None:
    """Seconds an idle engine stays in memory; None: until its memory is needed.

    `keep_alive_s` is what the last request asked for, where it did: less than 0 is for ever, 0 not at all (Ollama's `keep_alive`).
    """
    if rules.pin:
        return None
    if keep_alive_s is not None:
        return keep_alive_s if keep_alive_s >= 0 else None
    return (default_s if rules.idle_ttl_s is None else rules.idle_ttl_s) or None


# --- memory ---


@dataclass(frozen=True, slots=True)
class Bytes:
    """An amount of memory: the host's, and that of each GPU by its index."""

    host: int = 0
    gpus: Mapping[int, int] = field(default_factory=dict)

    def __add__(self, other: Bytes) -> Bytes:
        names = {**self.gpus, **other.gpus}
        return Bytes(self.host + other.host, {name: self.gpu(name) + other.gpu(name) for name in names})

    def __sub__(self, other: Bytes) -> Bytes:
        names = {**self.gpus, **other.gpus}
        return Bytes(self.host - other.host, {name: self.gpu(name) - other.gpu(name) for name in names})

    def gpu(self, index: int) -> int:
        """The amount on one GPU."""
        return self.gpus.get(index, 0)

    def fits(self, free: Bytes) -> bool:
        """Whether this much is free everywhere it is needed."""
        return self.host <= free.host and all(need <= free.gpu(name) for name, need in self.gpus.items())

    def lacks(self, free: Bytes) -> Bytes:
        """What is missing, nowhere less than 0."""
        return Bytes(
            max(0, self.host - free.host),
            {name: short for name, need in self.gpus.items() if (short := need - free.gpu(name)) > 0},
        )


def total(amounts: Iterable[Bytes]) -> Bytes:
    return sum(amounts, Bytes())


def size_text(n_bytes: int) -> str:
    """As people write it: `1.2 GiB`."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


@dataclass(frozen=True, slots=True)
class Resident:
    """An engine in memory, or on its way there, as this policy sees it. `name` is any unique number."""

    name: int
    held: Bytes
    """What ending it would set free."""
    last_used: float
    """On the clock of `now`."""
    busy: bool = False
    """Somebody uses it, or it is still loading or already ending."""
    pinned: bool = False
    limit_s: float | None = None
    """Seconds it may be idle; None for ever."""
    groups: frozenset[str] = frozenset()
    """Exclusive groups that it is of: no two of one are in memory together."""

    @property
    def evictable(self) -> bool:
        return not (self.busy or self.pinned)


def expired(residents: Iterable[Resident], now: float) -> list[int]:
    """The engines whose time is over."""
    return [
        one.name
        for one in residents
        if one.evictable and one.limit_s is not None and now >= one.last_used + one.limit_s
    ]


def crowded(residents: Iterable[Resident]) -> list[int]:
    """Engines that may not stay beside another one of their exclusive groups: groups change while engines live.

    Those in use stay, then those that were used last.
    """
    taken: set[str] = set()
    going = []
    for one in sorted(residents, key=lambda one: (one.evictable, -one.last_used, -one.name)):
        if one.evictable and one.groups & taken:
            going.append(one.name)
        else:
            taken |= one.groups
    return going


def next_expiry(residents: Iterable[Resident]) -> float | None:
    """When the next of them has to be looked at; None: not before something changes."""
    times = [one.last_used + one.limit_s for one in residents if one.evictable and one.limit_s is not None]
    return min(times, default=None)


@dataclass(frozen=True, slots=True)
class Load:
    """There is memory enough: load now."""


@dataclass(frozen=True, slots=True)
class Evict:
    """There is enough once these have ended."""

    names: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """There will be enough when these, which are busy, have become idle and ended."""

    names: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """There would not be enough even if all went that may go."""

    lacking: Bytes
    rivals: tuple[int, ...] = ()
    """Pinned engines of the same exclusive group, which are the reason where there are any."""


Decision: TypeAlias = Load | Evict | Wait | Refuse


def make_room(
    needs: Sequence[Bytes],
    free: Bytes,
    residents: Sequence[Resident],
    groups: frozenset[str] = frozenset(),
) -> Decision:
    """What to do for an engine that is to load. `needs` are the amounts it can live with, the best first.

    Those of its exclusive `groups` go in any case. Room is made for the best amount that idle engines can make room for; only
    where they cannot for any, busy ones are waited for. An eviction or a wait names no engine that is not needed for it.
    """
    rivals = [one for one in residents if one.groups & groups]
    pinned = tuple(one.name for one in rivals if one.pinned)
    if pinned:
        return Refuse(Bytes(), pinned)
    gone = tuple(one.name for one in rivals)
    free += total(one.held for one in rivals)
    others = [one for one in residents if one not in rivals]
    idle = [one for one in others if one.evictable]
    for need in needs:
        names = _fewest(need, free, idle)
        if names is None:
            continue
        if any(one.busy for one in rivals):
            return Wait(gone)
        return Evict(gone + names) if gone + names else Load()
    mortal = [one for one in others if not one.pinned]
    for need in needs:
        names = _fewest(need, free, mortal)
        if names is not None:
            return Wait(gone + names)
    return Refuse(needs[-1].lacks(free + total(one.held for one in mortal)))


def _fewest(need: Bytes, free: Bytes, candidates: Sequence[Resident]) -> tuple[int, ...] | None:
    """Engines whose end leaves enough, idle before busy and the least recently used first, and none in vain."""
    chosen: list[Resident] = []
    for one in sorted(candidates, key=lambda one: (one.busy, one.last_used)):
        if need.fits(free):
            break
        if _helps(one.held, need.lacks(free)):
            chosen.append(one)
            free += one.held
    if not need.fits(free):
        return None
    for one in reversed(chosen[:-1]):  # a large one that came later may have made smaller ones unnecessary
        if need.fits(free - one.held):
            free -= one.held
            chosen.remove(one)
    return tuple(one.name for one in chosen)


def _helps(held: Bytes, lacking: Bytes) -> bool:
    return bool(held.host and lacking.host) or any(held.gpu(name) for name in lacking.gpus)
