"""Scheduler: which tokens are computed in the next step, and whose cells they use.

Pure: no clock, no native calls, no I/O. The engine loop asks for a plan, carries it out and reports back with `commit`.

The rules, in order:
 1. Every decoding sequence gets its token, with draft tokens where they pay. Streams never wait for a prompt.
 2. What is left of the step is given to prompts, one after the other, as if each had been promised at its admission to be read
    after as many prompt tokens more as it has itself: those of a higher priority first, then short ones, of which none has another one
    of its priority wait for ever. Few at a time are cheaper than all at once, as attention computes neighbouring tokens with all cells that any of them sees. While anybody decodes, the step
    is kept near the target duration; otherwise it may last a second. (Chunked prefill without stalls: Sarathi-Serve,
    https://arxiv.org/abs/2403.02310.) A long prompt that would make the step longer than that is left to the prefill context,
    where the backend has one: `begin_prefill`.
 3. Waiting sequences are admitted by priority, then in order, while there is room for their whole prompt. One whose
    beginning another sequence is computing right now waits for that instead of computing it again. Where all answers are
    certain to end within the target duration, one waits for that if it would take more from them than it waits (shortest
    remaining time first), and is read with what comes next.
 4. Where cells run out: finished sequences give up theirs, from the end, those first that are worth least; then the youngest
    running one of the lowest priority is preempted. It keeps its tokens and goes back to the queue, to compute them again, as
    in vLLM; its client sees a pause. What gives up cells is saved first, where that is on and worth it: `begin_restore`.
 5. Finished sequences also give up cells that slow the running ones, or make attention walk far: `eviction.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from kolosal.engines.memory.limits import MAX_DRAFT_TOKENS_PER_STEP
from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.schedule.checkpoints import MIN_DISTANCE, places, spaced
from kolosal.engines.worker.schedule.eviction import TRIM_TOKENS, Eviction, PromptsAhead
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.limits import (
    LEAST_APART_TOKENS,
    TILE_TOKENS,
    SchedulerLimits,
    whole_tiles,
)
from kolosal.engines.worker.schedule.long_prompts import LongPrompts
from kolosal.engines.worker.schedule.plan import Chunk, Copy, MemoryOp, Plan, Restore
from kolosal.engines.worker.schedule.prefix_cache import MIN_HIT_TOKENS, Match, PrefixCache
from kolosal.engines.worker.schedule.saved_sequences import Saved, SavedSequences
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import StepCost, Work, cells_seen
from kolosal.engines.worker.schedule.waiting import WaitingQueue

MAX_DECODE_TOKENS = 32
"""A sequence with no more pending tokens than this is decoding: they are new, or forced, or too few to be split."""

MIN_PREFILL_TOKENS = 32
"""Prompt tokens per step at least: smaller chunks cost more than they smooth (measured: 20 % of prompt speed at 32)."""

LONE_STEP_S = 1.0
"""Duration of a step to aim for while nobody decodes: how long an abort or a new request may wait for its end."""

MAX_LONE_TRIES = 3
"""How often the only running sequence is tried again when the backend says it has no room even for that."""

WORTH_WAITING_TOKENS = 32
"""A sequence waits for cells another is computing when it saves at least this many tokens."""

_FEW_STREAMS = 4
"""What a cell costs is known for steps of so many tokens (`llamacpp/attention.py`)."""


class Scheduler:
    """The waiting queue, the running batch and the finished sequences whose cells are kept."""

    def __init__(
        self,
        cache: KVCache,
        prefixes: PrefixCache,
        limits: SchedulerLimits,
        cost: StepCost,
        slice_cost: StepCost,
        saved: SavedSequences | None = None,
        control_tokens: frozenset[int] = frozenset(),
    ) -> None:
        """`cost` knows what a step takes, `slice_cost` what a layer of a chunk in the prefill context takes. `control_tokens` are
        looked for where memory cannot be cut: they say where parts of a prompt begin and end."""
        self._cache = cache
        self._prefixes = prefixes
        self._limits = limits
        self._saved = SavedSequences(0, prefixes.reuse) if saved is None else saved
        self._control_tokens = control_tokens
        self._cost = cost
        self._long_prompts = LongPrompts(limits, slice_cost)
        self._eviction = Eviction(cache, prefixes, self._saved, limits, cost, self._may_hold_up_s)
        # So few that a step has room for those of all sequences.
        self._decode_tokens = max(1, min(MAX_DECODE_TOKENS, limits.n_batch // limits.n_parallel))
        self.fetching: Saved | None = None
        """What the next sequence waits for, to be read from its file."""
        self.waiting = WaitingQueue()
        self.running: list[Sequence] = []  # in order of admission
        self._n_prompt_tokens = 0  # that were computed so far
        self._lone_tries = 0
        # steps in a row for which the backend had less room than the account; then nobody is admitted
        self._halvings = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.add(sequence)

    def find(self, request_id: int) -> Sequence | None:
        """The sequence of a request that has not ended."""
        return next((s for s in (*self.running, *self.waiting) if s.request_id == request_id), None)

    def finish(self, sequence: Sequence, *, keep: bool) -> list[MemoryOp]:
        """Take out a sequence that ended. Its cells stay for others if they may and `keep` says they are sound."""
        slot = sequence.slot
        if slot is None:
            self.waiting.remove(sequence)
            return []
        self._stop_running(sequence)
        sequence.slot = None
        if not keep or not self._prefixes.keep(slot, sequence):
            return self._eviction.release(slot)
        plan = Plan()
        if slot in self._eviction.far_behind():
            self._eviction.make_way(plan, slot)
        return plan.memory

    def trim(self, sequence: Sequence) -> int | None:
        """Note that the cells of rejected draft tokens are cut off; returns how many stay, None when all do."""
        if sequence.slot is None or self._cache.length(sequence.slot) == sequence.n_computed:
            return None
        self._cache.trim(sequence.slot, sequence.n_computed)
        return sequence.n_computed

    # --- one step ---

    def schedule(self) -> Plan:
        """The next step. Has no chunks only when there is no work, or none before a chunk of the prefill context or a file is there."""
        plan = Plan()
        if not self.has_work:
            return plan
        self._prefixes.tick()
        self._eviction.expire(plan, _work(filter(self._decodes, self.running)), self._prompts_ahead)
        self._eviction.close_holes(plan, self._prompts_ahead)
        self._keep_checkpoints(plan)
        self._plan_decodes(plan)
        self._plan_prefills(plan)
        waits = self._long_prompts.chunk is not None or self.fetching is not None
        while not plan.chunks and not waits and self._free_some(plan, TRIM_TOKENS):
            self._plan_prefills(plan)  # prompts that began together and cannot all be finished
        return plan

    def commit(self, plan: Plan) -> None:
        """Note that a plan was computed."""
        self._halvings = self._lone_tries = 0
        for chunk in plan.chunks:
            self._note_computed(chunk)

    def _note_computed(self, chunk: Chunk) -> None:
        count = len(chunk.tokens)
        self._n_prompt_tokens += max(0, min(count, chunk.sequence.n_prompt - chunk.start))
        chunk.sequence.n_computed += count
        self._cache.grow(chunk.slot, count)

    def make_smaller(self, plan: Plan) -> bool:
        """The backend had no room for a plan: the next will need less. False when there is nothing left to give up.

        Puts what must be released into `plan.memory`, which is otherwise done with.
        """
        plan.memory.clear()
        if (slot := self._eviction.least_worth()) is not None:
            self._eviction.evict(plan, slot)
            return True
        self._halvings += 1
        if plan.n_tokens > len(plan.chunks) and self._halvings <= self._limits.n_batch.bit_length():
            return True
        if self._preempt(plan):
            return True
        self._lone_tries += 1
        return self._lone_tries <= MAX_LONE_TRIES

    def _plan_decodes(self, plan: Plan) -> None:
        decoding = [s for s in self.running if self._decodes(s)]
        n_tokens = sum(s.n_next for s in decoding)
        while (missing := n_tokens - self._free_cells) > 0 and self._free_some(plan, missing):
            decoding = [s for s in self.running if self._decodes(s)]
            n_tokens = sum(s.n_next for s in decoding)
        work = _work(decoding)
        prompts_wait = bool(self.waiting) or len(decoding) < len(self.running)
        # prompt tokens are wanted for certain, draft tokens are not
        most = 0 if prompts_wait else MAX_DRAFT_TOKENS_PER_STEP
        room = min(self._free_cells - n_tokens, self._limits.n_batch - n_tokens, most)
        n_expected = float(len(decoding))
        for sequence in decoding:
            n_expected += self._draft(sequence, work, n_expected, room)
            if sequence.draft:
                work = work.longer(len(sequence.tokens), len(sequence.draft))
                room -= len(sequence.draft)
            self._add(plan, sequence, sequence.n_next)

    def _decodes(self, sequence: Sequence) -> bool:
        return sequence.n_pending <= self._decode_tokens and not sequence.wants_prompt_rows

    def _draft(self, sequence: Sequence, work: Work, n_expected: float, room: int) -> float:
        """Draft what comes next in a sequence, as far as that pays in a step of this work that gives `n_expected` tokens to all; returns
        how many of the draft tokens are expected to be kept."""
        sequence.draft, kept = [], 0.0
        start = len(sequence.tokens)
        room = min(room, sequence.max_length - start - 1)
        if sequence.speculator is not None and sequence.n_pending == 1 and room > 0 and not self._halvings:
            sequence.draft, kept = sequence.speculator.draft(self._cost, work, start, n_expected, room)
        return kept

    def _plan_prefills(self, plan: Plan) -> None:
        prompts = [s for s in self.running if not self._decodes(s)]
        prompts += self._admit(plan)
        apart = self._prompts_apart()
        prompts = [s for s in prompts if s not in apart]
        prompts.sort(key=lambda sequence: sequence.prefill_order)
        beside_streams, n_before = bool(plan.chunks), plan.n_tokens
        rows = MAX_DRAFT_TOKENS_PER_STEP  # there are no drafts in a step with prompts
        for sequence in prompts:
            start, n_added = sequence.n_computed, plan.n_tokens - n_before
            room = self._room(plan, start, n_added, beside_streams=beside_streams)
            if room <= 0:
                break
            count = min(sequence.n_next, room, self._free_cells - plan.n_tokens)
            if sequence.wants_prompt_rows:
                count = min(count, rows + max(0, sequence.n_logged - 1 - start))
                rows -= sequence.prompt_rows(start, start + count)
            if count > 0:
                sequence.draft = []
                self._add(plan, sequence, count)

    def _room(self, plan: Plan, start: int, n_added: int, *, beside_streams: bool) -> int:
        """Tokens of a prompt, from position `start` on, that a step may hold beside what it holds, of which `n_added` are of other
        prompts."""
        limits = self._limits
        most = min(limits.n_prefill - n_added, limits.n_batch - plan.n_tokens)
        least, seconds = (
            (MIN_PREFILL_TOKENS, limits.target_step_s) if beside_streams else (TILE_TOKENS, LONE_STEP_S)
        )
        within = self._cost.tokens_within(seconds, plan.work, start=start, at_most=most)
        if within < most:
            most = min(most, max(least - n_added, whole_tiles(plan.n_tokens + within) - plan.n_tokens))
        return max(1 if most > 0 and not n_added else 0, most >> self._halvings)

    def _add(self, plan: Plan, sequence: Sequence, count: int) -> None:
        assert sequence.slot is not None  # noqa: S101 - only running sequences are planned
        start = sequence.n_computed
        tokens = sequence.tokens[start : start + count] + sequence.draft
        at_end = start + count == len(sequence.tokens)
        n_outputs = 1 + len(sequence.draft) if at_end else 0
        if sequence.wants_prompt_rows:
            n_outputs = sequence.prompt_rows(start, start + count)
        plan.add(Chunk(sequence, sequence.slot, start, tokens, n_outputs))

    @property
    def _free_cells(self) -> int:
        """Cells that a step may fill."""
        return self._cache.free_cells - self._long_prompts.n_reserved

    # --- the prefill context ---

    def begin_prefill(self) -> Chunk | None:
        """What the prefill context computes next, while steps go on; None when there is nothing for it."""
        return None if self._halvings else self._long_prompts.begin(self._prompts_apart(), self._free_cells)

    def is_prefilling(self, chunk: Chunk) -> bool:
        """Whether a chunk is still wanted: its sequence has neither ended nor been preempted since it began."""
        return self._long_prompts.chunk is chunk

    def commit_prefill(self, chunk: Chunk) -> None:
        """Note that it was computed, and that its cells are there."""
        self._long_prompts.commit()
        self._note_computed(chunk)

    def give_up_prefill(self) -> None:
        """Note that it cannot be computed there: steps will."""
        self._long_prompts.give_up()

    def _prompts_apart(self) -> list[Sequence]:
        """Running prompts that steps leave alone, for the sake of those that decode."""
        limits = self._limits
        prompts = [s for s in self.running if s.apart and not self._decodes(s)]
        if not prompts or not limits.prefill_cells:
            return []
        decoding = _work(filter(self._decodes, self.running))
        if not (decoding.n_tokens or self._long_prompts.chunk):
            return []
        start = min(prompts, key=lambda sequence: sequence.prefill_order).n_computed
        room = self._cost.tokens_within(limits.target_step_s, decoding, start=start, at_most=limits.n_prefill)
        return self._long_prompts.among(prompts, room)

    # --- what was saved ---

    def begin_restore(self) -> Restore | None:
        """The next waiting sequence, with what was saved of it, where that is more than is in cells and there is room; one a step.
        Ends with `commit_restore` or `give_up_restore`. Where that is in a file only, it is `fetching` from then on, and nobody is
        admitted before it is `fetched`."""
        if not self._saved or self._is_full or self.fetching is not None:
            return None
        far = self._eviction.far_behind()
        for sequence in self.waiting:
            match = self._match(sequence, far)
            if not self._is_ahead(match):
                return self._plan_restore(sequence, match)
        return None

    def _plan_restore(self, sequence: Sequence, match: Match) -> Restore | None:
        found = self._found_saved(sequence, match)
        if found is None:
            return None
        saved, n_cells = found
        if saved.state is None:
            self.fetching = saved
            return None
        plan = Plan()
        slot = self._open(plan, Match())
        needed = self._needed_to_restore(sequence, found[0])
        while (missing := needed - self._cache.free_cells) > 0 and self._eviction.give_up(plan, missing):
            pass
        return Restore(sequence, slot, saved, saved.state, n_cells, plan.memory)

    def _found_saved(self, sequence: Sequence, match: Match) -> tuple[Saved, int] | None:
        """What was saved of a sequence that would see the cells of `match`, where it is better and there is room for it."""
        found = self._saved.match(sequence, match.n_cells)
        if found is not None and self._needed_to_restore(sequence, found[0]) > (
            self._cache.free_cells + self._cache.freed_by(self._prefixes.slots)
        ):
            return None
        return found

    def _needed_to_restore(self, sequence: Sequence, saved: Saved) -> int:
        """All of its cells come back before they are cut, and the rest is computed."""
        pending = sum(other.n_pending for other in self.running)
        return max(len(saved.tokens), len(sequence.tokens) + pending)

    def commit_restore(self, restore: Restore) -> list[MemoryOp]:
        """Note that it was done: its sequence runs. Returns what that makes superfluous."""
        sequence, slot, saved, n_cells = restore.sequence, restore.slot, restore.saved, restore.n_cells
        self._cache.grow(slot, len(saved.tokens))
        self._cache.trim(slot, n_cells)
        self._saved.touch(saved)
        plan = Plan()
        for other in self._prefixes.contained_in(saved.tokens[:n_cells], saved.scope):
            self._eviction.evict(plan, other, save=False)
        self._begin(sequence, slot, n_cells)
        return plan.memory

    def fetched(self, state: memoryview | None) -> None:
        """Note what was read of the entry that was `fetching`; None where that cannot be had."""
        if self.fetching is not None:
            self._saved.fetched(self.fetching, state)
        self.fetching = None

    def give_up_restore(self, restore: Restore) -> None:
        """Note that it could not be done, and never can."""
        self._cache.close(restore.slot)
        self._saved.drop(restore.saved)

    def begin_file(self) -> tuple[int, Saved] | None:
        """A finished sequence that has cells and no file yet, and the entry for it; None where there is none."""
        for slot in self._prefixes.slots:
            tokens, scope = self._prefixes.tokens(slot), self._prefixes.scope(slot)
            if (saved := self._saved.begin_file(tokens, scope, self._may_hold_up_s())) is not None:
                return slot, saved
        return None

    # --- admission ---

    def _admit(self, plan: Plan) -> list[Sequence]:
        """Start waiting sequences while there is room; returns those that did."""
        admitted: list[Sequence] = []
        ends_in_s, far = self._all_end_in_s(), self._eviction.far_behind()
        for sequence in tuple(self.waiting):
            if self._is_full or self.fetching is not None:
                break
            # whoever wants to know about all of its prompt has to compute all of it
            match = Match() if sequence.prompt_logprobs else self._match(sequence, far)
            if self._is_ahead(match):
                continue  # its beginning is being computed right now
            if ends_in_s <= self._delay_s(match.n_cells, len(sequence.tokens) - match.n_cells):
                break
            if self.running and self._found_saved(sequence, match) is not None:
                break  # before the next step
            if not self._start(plan, sequence, match):
                break
            admitted.append(sequence)
        return admitted

    def _start(self, plan: Plan, sequence: Sequence, match: Match) -> bool:
        """Give a sequence its id and the cells it can share, if its whole prompt fits."""
        if not self._cache.has_free_slot and self._prefixes.slots == (match.slot,) and not match.takes_over:
            match = Match()  # the source holds the only sequence id there is for it
        # the running ones were promised cells for their next token or the rest of their prompt
        needed = len(sequence.tokens) - match.n_cells + sum(other.n_pending for other in self.running)
        if needed > self._cache.free_cells:
            evictable = [slot for slot in self._prefixes.slots if slot != match.slot]
            if needed > self._cache.free_cells + self._cache.freed_by(evictable):
                return False
        if match.takes_over and match.slot is not None:
            self._prefixes.remove(match.slot)
            slot = match.slot
        else:
            slot = self._open(plan, match)
        while (missing := needed - self._cache.free_cells) > 0 and self._eviction.give_up(plan, missing):
            pass
        self._begin(sequence, slot, match.n_cells, match.n_shared)
        return True

    def _match(self, sequence: Sequence, far: set[int]) -> Match:
        """The best source of cells for a sequence that is about to start, but for running ones that are far behind."""
        return self._prefixes.match(sequence, [other for other in self.running if other.slot not in far])

    def _is_ahead(self, match: Match) -> bool:
        """Whether a running sequence is about to compute what is worth waiting for; where memory cannot be cut it is asked to keep a
        checkpoint of it."""
        others = max(match.n_cells, match.n_expected)
        if match.ahead is not None and match.n_shared - others >= MIN_DISTANCE:
            ahead = match.ahead
            ahead.checkpoints = spaced([*ahead.checkpoints, match.n_shared], ahead.n_computed)
            if match.n_shared in ahead.checkpoints:
                return True
        return match.n_expected - match.n_cells >= WORTH_WAITING_TOKENS

    def _keep_checkpoints(self, plan: Plan) -> None:
        """Have sequence ids of their own see the cells of sequences that have come to their next checkpoint."""
        for sequence in self.running:
            if sequence.n_next or not sequence.checkpoints:
                continue
            n_cells = sequence.checkpoints.pop(0)
            assert sequence.slot is not None  # noqa: S101 - it is running
            if self._prefixes.has(sequence.tokens[:n_cells], sequence.cache_scope):
                continue
            if not self._cache.has_free_slot and (spare := self._eviction.least_worth()) is not None:
                self._eviction.evict(plan, spare)
            if self._cache.has_free_slot:
                slot = self._cache.open()
                self._cache.share(sequence.slot, slot, n_cells)
                plan.memory.append(Copy(sequence.slot, slot, n_cells))
                self._prefixes.keep_checkpoint(slot, sequence)

    def _all_end_in_s(self) -> float:
        """Seconds after which nobody runs any more, as no answer may be longer than was asked for; infinite where that is not known."""
        step_s = self._cost.seconds(_work(self.running))
        if not step_s or not self.running or not all(self._decodes(s) for s in self.running):
            return math.inf
        return step_s * max(s.max_length - len(s.tokens) for s in self.running)

    def _delay_s(self, start: int, n_tokens: int) -> float:
        """Seconds that so many tokens of a prompt would take from those that run, all together; no more than each may be asked for."""
        running = _work(filter(self._decodes, self.running))
        n_more = min(n_tokens, self._limits.n_prefill)
        alone_s, with_s = self._cost.seconds(running), self._cost.seconds(running.plus(start, n_more))
        more_s = 0.0 if alone_s is None or with_s is None else with_s - alone_s
        return min(len(self.running) * more_s, self._limits.target_step_s)

    @property
    def _is_full(self) -> bool:
        """Whether nobody may begin to run."""
        return len(self.running) >= self._limits.n_parallel or (self._halvings > 0 and bool(self.running))

    def _begin(self, sequence: Sequence, slot: int, n_cells: int, n_shared: int = 0) -> None:
        """Have a waiting sequence run, with cells for its first tokens."""
        sequence.slot = slot
        sequence.n_computed = n_cells
        if self._prefixes.reuse is Reuse.WHOLE and sequence.use_cache and not sequence.prompt_logprobs:
            sequence.checkpoints = places(sequence.tokens, n_cells, n_shared, self._control_tokens)
        sequence.due = self._n_prompt_tokens + sequence.n_pending
        self._long_prompts.admit(sequence)
        if sequence.n_cached is None:
            sequence.n_cached = n_cells
        self.waiting.start(sequence)
        self.running.append(sequence)

    def _open(self, plan: Plan, match: Match) -> int:
        """A new sequence id that sees the matched cells."""
        if (
            not self._cache.has_free_slot
            and (spare := self._eviction.least_worth(but=match.slot)) is not None
        ):
            self._eviction.evict(plan, spare)
        slot = self._cache.open()
        if match.slot is not None and match.n_cells:
            self._cache.share(match.slot, slot, match.n_cells)
            plan.memory.append(Copy(match.slot, slot, match.n_cells))
            if self._prefixes.is_superseded(match.slot, match.n_cells):
                self._eviction.evict(plan, match.slot, save=False)
            else:
                self._prefixes.touch(match.slot)
        return slot

    # --- pressure ---

    def _may_hold_up_s(self) -> float:
        """How long a copy of cells may take."""
        decodes = any(self._decodes(s) for s in self.running)
        return self._limits.target_step_s if decodes else LONE_STEP_S

    def _prompts_ahead(self) -> PromptsAhead:
        n_next = max(0, self._limits.n_parallel - len(self.running))
        matches = [(s, self._prefixes.match(s, self.running)) for s in islice(self.waiting, n_next)]
        n_tokens = sum(len(s.tokens) - match.n_cells for s, match in matches)
        n_tokens += sum(s.n_pending for s in self.running if not self._decodes(s))
        n_steps = n_tokens / _FEW_STREAMS if n_tokens >= LEAST_APART_TOKENS else 0.0
        slots = (match.slot for _, match in matches if match.n_cells >= MIN_HIT_TOKENS)
        return PromptsAhead(n_steps, frozenset(slots))

    def _free_some(self, plan: Plan, n_cells: int) -> bool:
        return self._eviction.give_up(plan, n_cells) or self._preempt(plan)

    def _preempt(self, plan: Plan) -> bool:
        """Send a running sequence back to the queue. Not the only one: it has all cells there are."""
        if len(self.running) < 2:
            return False
        lowest = min(sequence.priority for sequence in self.running)
        youngest = [sequence for sequence in self.running if sequence.priority == lowest][-1]
        assert youngest.slot is not None  # noqa: S101 - it is running
        self._stop_running(youngest)
        plan.chunks = [chunk for chunk in plan.chunks if chunk.sequence is not youngest]
        if youngest.use_cache:
            self._eviction.save(
                plan, youngest.slot, youngest.tokens[: youngest.n_computed], youngest.cache_scope
            )
        plan.memory += self._eviction.release(youngest.slot)
        youngest.slot = None
        youngest.n_computed = 0
        youngest.checkpoints = []
        self.waiting.put_back(youngest)
        return True

    def _stop_running(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._long_prompts.drop(sequence)


def _work(sequences: Iterable[Sequence]) -> Work:
    """What the next tokens of these sequences are, drafts left out."""
    n_tokens = n_seen = n_cells = 0
    for each in sequences:
        start, count = each.n_computed, each.n_next
        n_tokens += count
        n_seen += cells_seen(start, count)
        n_cells += start + count
    return Work(n_tokens, n_seen, n_cells)
