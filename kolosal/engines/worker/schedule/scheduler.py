"""Scheduler: which tokens are computed in the next step, and whose cells they use.

Pure: no clock, no native calls, no I/O. The engine loop asks for a plan, carries it out and reports back with `commit`.

The rules, in order:
 1. Every decoding sequence gets its token, with draft tokens where they pay. Streams never wait for a prompt.
 2. What is left of the step is given to prompts in equal shares, so that a long one does not hold up short ones. While
    anybody decodes, the step is kept near the target duration; otherwise it may last a second. (Chunked prefill without
    stalls: Sarathi-Serve, https://arxiv.org/abs/2403.02310.)
 3. Waiting sequences are admitted by priority, then in order, while there is room for their whole prompt. One whose
    beginning another sequence is computing right now waits for that instead of computing it again.
 4. Where cells run out: finished sequences are evicted, least recently used first; then the youngest running one of the
    lowest priority is preempted. It keeps its tokens and goes back to the queue, to compute them again, as in vLLM; its
    client sees a pause.
"""

from __future__ import annotations

from dataclasses import dataclass

from kolosal.engines.memory.limits import MAX_DRAFT_TOKENS_PER_STEP
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.plan import Chunk, Copy, MemoryOp, Plan, Release
from kolosal.engines.worker.schedule.prefix_cache import Match, PrefixCache
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import StepCost
from kolosal.engines.worker.schedule.waiting import WaitingQueue

MAX_DECODE_TOKENS = 32
"""A sequence with no more pending tokens than this is decoding: they are new, or forced, or too few to be split."""

MIN_PREFILL_TOKENS = 32
"""Prompt tokens per step at least: smaller chunks cost more than they smooth (measured: 20 % of prompt speed at 32)."""

MIN_LONE_PREFILL_TOKENS = 64
"""The same while nobody decodes."""

LONE_STEP_S = 1.0
"""Duration of a step to aim for while nobody decodes: how long an abort or a new request may wait for its end."""

MAX_LONE_TRIES = 3
"""How often the only running sequence is tried again when the backend says it has no room even for that."""

WORTH_WAITING_TOKENS = 32
"""A sequence waits for cells another is computing when it saves at least this many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """What bounds a step."""

    n_parallel: int
    """Running sequences at most."""
    n_batch: int
    """Tokens in a step at most."""
    n_prefill: int
    """Prompt tokens in a step while nobody decodes."""
    target_step_s: float
    """Duration to aim for while somebody decodes."""


class Scheduler:
    """The waiting queue, the running batch and the finished sequences whose cells are kept."""

    def __init__(
        self, cache: KVCache, prefixes: PrefixCache, limits: SchedulerLimits, cost: StepCost
    ) -> None:
        self._cache = cache
        self._prefixes = prefixes
        self._limits = limits
        self._cost = cost
        # So few that a step has room for those of all sequences.
        self._decode_tokens = max(1, min(MAX_DECODE_TOKENS, limits.n_batch // limits.n_parallel))
        self.waiting = WaitingQueue()
        self.running: list[Sequence] = []  # in order of admission
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
        self.running.remove(sequence)
        sequence.slot = None
        if keep and self._prefixes.keep(slot, sequence):
            return []
        return self._release(slot)

    def trim(self, sequence: Sequence) -> int | None:
        """Note that the cells of rejected draft tokens are cut off; returns how many stay, None when all do."""
        if sequence.slot is None or self._cache.length(sequence.slot) == sequence.n_computed:
            return None
        self._cache.trim(sequence.slot, sequence.n_computed)
        return sequence.n_computed

    # --- one step ---

    def schedule(self) -> Plan:
        """The next step. Has no chunks only when there is no work."""
        plan = Plan()
        self._prefixes.tick()
        while (expired := self._prefixes.expired) is not None:
            self._evict(plan, expired)
        self._plan_decodes(plan)
        self._plan_prefills(plan)
        while not plan.chunks and self._free_some(plan):
            self._plan_prefills(plan)  # prompts that began together and cannot all be finished
        return plan

    def commit(self, plan: Plan) -> None:
        """Note that a plan was computed."""
        self._halvings = self._lone_tries = 0
        for chunk in plan.chunks:
            chunk.sequence.n_computed += len(chunk.tokens)
            self._cache.grow(chunk.slot, len(chunk.tokens))

    def make_smaller(self, plan: Plan) -> bool:
        """The backend had no room for a plan: the next will need less. False when there is nothing left to give up.

        Puts what must be released into `plan.memory`, which is otherwise done with.
        """
        plan.memory.clear()
        if self._evict_oldest(plan):
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
        while sum(s.n_pending for s in decoding) > self._cache.free_cells and self._free_some(plan):
            decoding = [s for s in self.running if self._decodes(s)]
        n_tokens = sum(s.n_pending for s in decoding)
        prompts_wait = bool(self.waiting) or len(decoding) < len(self.running)
        # prompt tokens are wanted for certain, draft tokens are not
        most = 0 if prompts_wait else MAX_DRAFT_TOKENS_PER_STEP
        room = min(self._cache.free_cells - n_tokens, self._limits.n_batch - n_tokens, most)
        for sequence in decoding:
            room -= self._draft(sequence, plan.n_tokens + sequence.n_pending, len(decoding), room)
            self._add(plan, sequence, sequence.n_pending)

    def _decodes(self, sequence: Sequence) -> bool:
        return sequence.n_pending <= self._decode_tokens and not sequence.wants_prompt_rows

    def _draft(self, sequence: Sequence, n_tokens: int, n_sequences: int, room: int) -> int:
        """Draft what comes next in a sequence, as far as that pays; returns the number of draft tokens."""
        sequence.draft = []
        room = min(room, sequence.max_length - len(sequence.tokens) - 1)
        if sequence.speculator is not None and sequence.n_pending == 1 and room > 0 and not self._halvings:
            sequence.draft = sequence.speculator.draft(self._cost, n_tokens, n_sequences, room)
        return len(sequence.draft)

    def _plan_prefills(self, plan: Plan) -> None:
        prompts = [s for s in self.running if not self._decodes(s)]
        prompts += self._admit(plan)
        budget = min(self._budget(plan), self._cache.free_cells - plan.n_tokens)
        prompts.sort(key=lambda sequence: sequence.n_pending)
        rows = MAX_DRAFT_TOKENS_PER_STEP  # there are no drafts in a step with prompts
        for index, sequence in enumerate(prompts):
            share = -(-budget // (len(prompts) - index))  # what short prompts leave goes to the longer ones
            count = min(sequence.n_pending, share)
            if sequence.wants_prompt_rows:
                start = sequence.n_computed
                count = min(count, rows + max(0, sequence.n_logged - 1 - start))
                rows -= sequence.prompt_rows(start, start + count)
            if count > 0:
                sequence.draft = []
                self._add(plan, sequence, count)
                budget -= count

    def _budget(self, plan: Plan) -> int:
        """Prompt tokens this step may hold."""
        limits = self._limits
        most = min(limits.n_prefill, limits.n_batch - plan.n_tokens)
        least, seconds = (
            (MIN_PREFILL_TOKENS, limits.target_step_s)
            if plan.chunks
            else (MIN_LONE_PREFILL_TOKENS, LONE_STEP_S)
        )
        total = self._cost.tokens_within(seconds, at_most=plan.n_tokens + most)
        most = min(most, max(least, total - plan.n_tokens))
        return max(1 if most > 0 else 0, most >> self._halvings)

    def _add(self, plan: Plan, sequence: Sequence, count: int) -> None:
        assert sequence.slot is not None  # noqa: S101 - only running sequences are planned
        start = sequence.n_computed
        tokens = sequence.tokens[start : start + count] + sequence.draft
        at_end = start + count == len(sequence.tokens)
        n_outputs = 1 + len(sequence.draft) if at_end else 0
        if sequence.wants_prompt_rows:
            n_outputs = sequence.prompt_rows(start, start + count)
        plan.chunks.append(Chunk(sequence, sequence.slot, start, tokens, n_outputs))
        plan.n_tokens += len(tokens)

    # --- admission ---

    def _admit(self, plan: Plan) -> list[Sequence]:
        """Start waiting sequences while there is room; returns those that did."""
        admitted: list[Sequence] = []
        for sequence in tuple(self.waiting):
            if len(self.running) >= self._limits.n_parallel or (self._halvings and self.running):
                break
            # whoever wants to know about all of its prompt has to compute all of it
            match = Match() if sequence.prompt_logprobs else self._prefixes.match(sequence, self.running)
            if match.n_expected - match.n_cells >= WORTH_WAITING_TOKENS:
                continue  # its beginning is being computed right now
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
        while needed > self._cache.free_cells and self._evict_oldest(plan):
            pass
        sequence.slot = slot
        sequence.n_computed = match.n_cells
        if sequence.n_cached is None:
            sequence.n_cached = match.n_cells
            if not sequence.prompt_logprobs:
                self._prefixes.observe(sequence, match.n_cells)
        self.waiting.start(sequence)
        self.running.append(sequence)
        return True

    def _open(self, plan: Plan, match: Match) -> int:
        """A new sequence id that sees the matched cells."""
        if not self._cache.has_free_slot:
            self._evict(plan, next(slot for slot in self._prefixes.slots if slot != match.slot))
        slot = self._cache.open()
        if match.slot is not None and match.n_cells:
            self._cache.share(match.slot, slot, match.n_cells)
            plan.memory.append(Copy(match.slot, slot, match.n_cells))
            if self._prefixes.is_superseded(match.slot, match.n_cells):
                self._evict(plan, match.slot)
            else:
                self._prefixes.touch(match.slot)
        return slot

    # --- pressure ---

    def _free_some(self, plan: Plan) -> bool:
        return self._evict_oldest(plan) or self._preempt(plan)

    def _evict_oldest(self, plan: Plan) -> bool:
        """Release the finished sequence that was not used for longest."""
        slots = self._prefixes.slots
        if slots:
            self._evict(plan, slots[0])
        return bool(slots)

    def _evict(self, plan: Plan, slot: int) -> None:
        self._prefixes.remove(slot)
        plan.memory += self._release(slot)

    def _preempt(self, plan: Plan) -> bool:
        """Send a running sequence back to the queue. Not the only one: it has all cells there are."""
        if len(self.running) < 2:
            return False
        lowest = min(sequence.priority for sequence in self.running)
        youngest = [sequence for sequence in self.running if sequence.priority == lowest][-1]
        assert youngest.slot is not None  # noqa: S101 - it is running
        self.running.remove(youngest)
        plan.chunks = [chunk for chunk in plan.chunks if chunk.sequence is not youngest]
        plan.memory += self._release(youngest.slot)
        youngest.slot = None
        youngest.n_computed = 0
        self.waiting.put_back(youngest)
        return True

    def _release(self, slot: int) -> list[MemoryOp]:
        self._cache.close(slot)
        return [Release(slot)]
