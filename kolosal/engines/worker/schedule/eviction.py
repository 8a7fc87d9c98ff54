"""Eviction: which finished sequences give up their cells, and when: for room, for speed, or because those cells lie far behind.

Pure. What gives up cells is saved first, where that is on and worth it.

 - For room: from the end, those first that are worth least (`PrefixCache`).
 - For speed: cells that slow the running ones by more than a few per cent go when nobody had use for them in time.
 - Attention walks over all cells up to the last one in use. Who has cells far behind as many as are in use, because somebody made
   room since, gives none to others that run beside it: finished sequences go, to be restored at the front, but for those
   that a waiting prompt is about to go on with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.limits import SchedulerLimits
from kolosal.engines.worker.schedule.plan import MemoryOp, Plan, Release, Save, Trim
from kolosal.engines.worker.schedule.prefix_cache import MIN_HIT_TOKENS, PrefixCache
from kolosal.engines.worker.schedule.saved_sequences import LEAST_TOKENS, SavedSequences
from kolosal.engines.worker.schedule.step_cost import StepCost, Work

UNCOUNTED_SHARE = 1 / 64
"""Share of the pool that finished sequences may have however old they are. llama.cpp's attention walks over all cells in use
in every step: a thousand cells slow a lone stream of SmolLM2-135M by some 12 % (measured), so this share of 16,384 by 3 %."""

UNCOUNTED_SLOWDOWN = 0.02
"""Of a step, by which they may slow it at most, where it is known what a cell costs."""

HOLES_SHARE = 1 / 16
"""Such a share of the pool may lie free among those in use, or `most_holes` if that is more."""

TRIM_TOKENS = 64
"""Cells that a finished sequence gives up at a time, at least."""


class PromptsAhead(NamedTuple):
    """What waiting prompts, and those that are being read, mean for finished sequences."""

    n_steps: float = 0.0
    """What reading them will cost for each cell that they do not see, in steps of a few streams, where they are long."""
    begin_with: frozenset[int | None] = frozenset()
    """The finished sequences that they begin with."""


class Eviction:
    """Takes cells from finished sequences, in the accounts and by what is added to a plan."""

    def __init__(
        self,
        cache: KVCache,
        prefixes: PrefixCache,
        saved: SavedSequences,
        limits: SchedulerLimits,
        cost: StepCost,
        may_hold_up_s: Callable[[], float],
    ) -> None:
        """`may_hold_up_s` says how long a copy of cells may take just now."""
        self._cache = cache
        self._prefixes = prefixes
        self._saved = saved
        self._limits = limits
        self._cost = cost
        self._may_hold_up_s = may_hold_up_s

    # --- for speed ---

    def expire(self, plan: Plan, streams: Work, prompts_ahead: Callable[[], PromptsAhead]) -> None:
        """Evict finished sequences that nobody had use for in time, while all of them have many cells. `streams` is the work of those
        that decode."""
        n_uncounted = self._uncounted_cells(streams)
        if self._cache.n_cells - self._cache.free_cells <= n_uncounted:
            return
        ahead = prompts_ahead() if self._limits.cell_s else PromptsAhead()
        outstayed = [
            slot
            for slot in self._prefixes.outstayed(self._paid_steps, ahead.n_steps)
            # what others see as well slows nobody
            if slot not in ahead.begin_with and self._cache.freed_by((slot,))
        ]
        while outstayed and self._cache.freed_by(self._prefixes.slots) > n_uncounted:
            slot = self._prefixes.least_worth(outstayed, self._lost_with)
            assert slot is not None  # noqa: S101 - there are some
            if self._has_to_wait(plan, slot):
                return
            outstayed.remove(slot)
            self.evict(plan, slot)

    def far_behind(self) -> set[int]:
        """Sequence ids whose cells make attention walk over many that nobody uses."""
        if self._prefixes.reuse is not Reuse.PREFIX:
            return set()
        n_used = self._cache.n_cells - self._cache.free_cells
        n_holes = max(self._limits.most_holes, int(HOLES_SHARE * self._cache.n_cells))
        return set(self._cache.reaching_beyond(n_used + n_holes))

    def close_holes(self, plan: Plan, prompts_ahead: Callable[[], PromptsAhead]) -> None:
        """Have finished sequences make way that lie far behind, but for those that prompts are about to go on with."""
        far = self.far_behind() & set(self._prefixes.slots)
        for slot in far - prompts_ahead().begin_with if far else ():
            self.make_way(plan, slot)

    def make_way(self, plan: Plan, slot: int) -> None:
        """Evict a finished sequence whose cells are far behind, where it comes back from host memory or is computed again in a moment."""
        n_tokens = self._cache.length(slot)
        may_go = n_tokens < LEAST_TOKENS or self._saved_s(n_tokens) is not None
        if may_go and not self._has_to_wait(plan, slot):
            self.evict(plan, slot)

    def _has_to_wait(self, plan: Plan, slot: int) -> bool:
        """Whether a plan has so much to save that what this sequence id has is better saved by another one."""
        planned_s = self._planned_s(plan)
        more_s = (self._saved.seconds_of(self._cache.length(slot)) or 0.0) / 2
        return planned_s > 0 and more_s > 0 and planned_s + more_s > self._may_hold_up_s()

    def _planned_s(self, plan: Plan) -> float:
        """What it will take to save what a plan has to save."""
        lengths = (len(each.saved.tokens) for each in plan.memory if isinstance(each, Save))
        return sum((self._saved.seconds_of(length) or 0.0) / 2 for length in lengths)

    def _saved_s(self, n_tokens: int) -> float | None:
        """What it takes to save so many tokens now and to restore them; None where they would not be saved."""
        seconds = self._saved.seconds_of(n_tokens)
        return None if seconds is None or seconds / 2 > self._may_hold_up_s() else seconds

    def _uncounted_cells(self, streams: Work) -> float:
        """Cells that slow nobody much, whoever has them."""
        share = UNCOUNTED_SHARE * self._cache.n_cells
        if not self._limits.cell_s:
            return share
        step_s = self._cost.seconds(streams) or 0.0
        return min(share, UNCOUNTED_SLOWDOWN * step_s / self._limits.cell_s)

    def _paid_steps(self, n_tokens: int) -> float:
        """After how many steps cells have cost the streams what it costs to bring them back: who does not know when they are wanted
        again does best, at the worst, to give them up then (ski rental: Karlin et al., Algorithmica 1988)."""
        if not self._limits.cell_s:
            return math.inf
        seconds = self._saved_s(n_tokens)
        if seconds is None:
            seconds = self._cost.seconds_of_prompt(n_tokens, self._limits.n_prefill)
        return seconds / (self._limits.cell_s * n_tokens)

    # --- for room ---

    def give_up(self, plan: Plan, n_cells: int) -> bool:
        """Have the finished sequence that is worth least give up its last cells: all, where it has not many more."""
        slot = self.least_worth()
        if slot is None:
            return False
        n_lost = max(n_cells, TRIM_TOKENS)
        n_left = self._cache.length(slot) - n_lost
        if (
            self._prefixes.reuse is Reuse.PREFIX
            and n_left >= MIN_HIT_TOKENS
            and n_lost <= self._lost_with(slot)
        ):
            self.save(plan, slot, self._prefixes.tokens(slot), self._prefixes.scope(slot))
            self._prefixes.cut(slot, n_left)
            self._cache.trim(slot, n_left)
            plan.memory.append(Trim(slot, n_left))
        else:
            self.evict(plan, slot)
        return True

    def least_worth(self, *, but: int | None = None) -> int | None:
        """The finished sequence to give up first."""
        return self._prefixes.least_worth(
            (slot for slot in self._prefixes.slots if slot != but), self._lost_with
        )

    def _lost_with(self, slot: int) -> int:
        """Cells that only this sequence id sees, or the tokens that only it serves where memory cannot be cut."""
        if self._prefixes.reuse is Reuse.WHOLE:
            return self._prefixes.n_unique(slot)
        return self._cache.freed_by((slot,))

    def evict(self, plan: Plan, slot: int, *, save: bool = True) -> None:
        """Have a finished sequence give up all of its cells."""
        if save:
            self.save(plan, slot, self._prefixes.tokens(slot), self._prefixes.scope(slot))
        self._prefixes.evict(slot, self._lost_with(slot))
        plan.memory += self.release(slot)

    def release(self, slot: int) -> list[MemoryOp]:
        """Give a sequence id back with all of its cells."""
        self._cache.close(slot)
        return [Release(slot)]

    def save(self, plan: Plan, slot: int, tokens: list[int], scope: str) -> None:
        """Save cells that are about to go, unless that would hold up somebody who decodes, with what else there is to save."""
        saved = self._saved.begin(tokens, scope, self._may_hold_up_s() - self._planned_s(plan))
        if saved is not None:
            plan.memory.append(Save(slot, saved))
