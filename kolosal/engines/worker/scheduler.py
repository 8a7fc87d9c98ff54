"""Scheduler: which tokens are computed in the next step.

Pure: no clock, no native calls, no I/O. The engine loop asks for a plan, carries it out and reports back with `commit`.

The rules, in order:
 1. Every decoding sequence gets its one token. Streams never wait for a prompt.
 2. Where cells run out, the youngest running sequence is preempted: it loses its cells, keeps its tokens and goes back
    to the head of the queue. Its client sees a pause.
 3. What is left of the budget is given to prompts, oldest first, in chunks. While anybody decodes, the budget is small,
    so that a long prompt delays each token only a little.
 4. Waiting sequences are admitted in order while there is a sequence id and room for their whole prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from kolosal.engines.worker.kvcache import KVCache
from kolosal.engines.worker.sequence import Sequence

PREFILL_TOKENS_BESIDE_DECODE = 128
"""Prompt tokens per step while others decode. 128 costs 2 % of prompt speed on a CPU, 32 costs 20 % (measured)."""

PREFILL_TOKENS_ALONE = 512
"""Prompt tokens per step while nobody decodes: bounds how long a new request or an abort waits for the step to end."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of a sequence, from position `start`, computed in one step."""

    sequence: Sequence
    slot: int
    start: int
    count: int

    @property
    def wants_output(self) -> bool:
        """Whether the step ends at the sequence's last token, so that the next one can be sampled."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(slots=True)
class Plan:
    """One step: first release the sequence ids of `released`, then compute `chunks` in one batch."""

    chunks: list[Chunk] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    n_tokens: int = 0

    def add(self, sequence: Sequence, count: int) -> None:
        assert sequence.slot is not None  # noqa: S101 - only running sequences are planned
        self.chunks.append(Chunk(sequence, sequence.slot, sequence.n_computed, count))
        self.n_tokens += count


class Scheduler:
    """The waiting queue and the running batch. Each sequence is in exactly one of them, or in neither when it ended."""

    def __init__(self, cache: KVCache, *, n_batch: int) -> None:
        self._cache = cache
        self._n_batch = n_batch
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # oldest first

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    @property
    def running(self) -> tuple[Sequence, ...]:
        return tuple(self._running)

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        return tuple(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self._waiting.append(sequence)

    def find(self, request_id: int) -> Sequence | None:
        """The sequence of a request that has not ended."""
        return next((s for s in (*self._running, *self._waiting) if s.request_id == request_id), None)

    def remove(self, sequence: Sequence) -> int | None:
        """Take out a sequence that ended; returns its sequence id, to be released, if it had one."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
            return None
        self._running.remove(sequence)
        return self._give_back(sequence)

    def schedule(self) -> Plan:
        """The next step. Empty only when nothing can run, which is when there is no work."""
        plan = Plan()
        self._plan_decodes(plan)
        self._plan_prefills(plan)
        while not plan.chunks and (released := self.preempt_youngest()) is not None:
            plan.released.append(released)  # prompts that began together and cannot all be finished
            self._plan_prefills(plan)
        return plan

    def commit(self, plan: Plan) -> None:
        """Note that a plan was computed."""
        for chunk in plan.chunks:
            chunk.sequence.n_computed += chunk.count
            self._cache.grow(chunk.slot, chunk.count)

    def preempt_youngest(self) -> int | None:
        """Send the youngest running sequence back to the head of the queue; returns its sequence id, to be released.

        Returns None when only one is running: it has the whole cache, so preempting it would gain nothing.
        """
        if len(self._running) < 2:
            return None
        youngest = self._running.pop()
        self._waiting.appendleft(youngest)
        return self._give_back(youngest)

    def _plan_decodes(self, plan: Plan) -> None:
        decoding = [s for s in self._running if s.decoding]
        while len(decoding) > self._cache.free_cells:
            released = self.preempt_youngest()
            if released is None:
                break
            plan.released.append(released)
            decoding = [s for s in self._running if s.decoding]
        for sequence in decoding[: self._n_batch]:
            plan.add(sequence, 1)

    def _plan_prefills(self, plan: Plan) -> None:
        budget = PREFILL_TOKENS_BESIDE_DECODE if plan.chunks else PREFILL_TOKENS_ALONE
        budget = min(budget, self._n_batch - plan.n_tokens)
        room = self._cache.free_cells - plan.n_tokens
        for sequence in self._prefilling():
            count = min(sequence.n_pending, budget, room)
            if count > 0:
                plan.add(sequence, count)
                budget -= count
                room -= count

    def _prefilling(self) -> Iterable[Sequence]:
        """Running sequences with prompt left, oldest first, then waiting ones, admitted as they are asked for."""
        prefilling = [s for s in self._running if not s.decoding]
        yield from prefilling
        decoding = len(self._running) - len(prefilling)
        promised = sum(s.n_pending for s in prefilling) + decoding
        while self._waiting and self._cache.has_free_slot:
            sequence = self._waiting[0]
            if promised + sequence.n_pending > self._cache.free_cells:
                return
            promised += sequence.n_pending
            self._waiting.popleft()
            sequence.slot = self._cache.open()
            self._running.append(sequence)
            yield sequence

    def _give_back(self, sequence: Sequence) -> int:
        assert sequence.slot is not None  # noqa: S101 - only running sequences are given back
        slot, sequence.slot = sequence.slot, None
        sequence.n_computed = 0
        self._cache.close(slot)
        return slot
