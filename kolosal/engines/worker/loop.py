"""EngineLoop: take what came in → schedule → decode → sample → emit, one step at a time.

Continuous batching (Orca, OSDI 2022): sequences join and leave between steps. Runs on the engine thread, which alone touches
the context, the scheduler and the KV cache. Others talk to it through `submit`, `abort`, `ping` and `stop`, and hear from it
through the `emit` callback.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from kolosal.engines.ipc.messages import FromWorker, Ping, Pong, SavedCounts, SequenceOutput, StepOutputs
from kolosal.engines.worker.backend import (
    Backend,
    BackendError,
    DecodeFailed,
    KVCacheFull,
    PrefillFailed,
    RestoreFailed,
    Reuse,
)
from kolosal.engines.worker.constraint import ConstraintFailed
from kolosal.engines.worker.layer_slices import LayerSlices
from kolosal.engines.worker.next_tokens import NextTokens
from kolosal.engines.worker.result_frames import failed
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.limits import SchedulerLimits
from kolosal.engines.worker.schedule.plan import Chunk, Copy, MemoryOp, Plan, Release, Save, Trim
from kolosal.engines.worker.schedule.prefix_cache import PrefixCache
from kolosal.engines.worker.schedule.saved_sequences import Saved, SavedSequences
from kolosal.engines.worker.schedule.scheduler import Scheduler
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import StepCost, Work
from kolosal.errors import GenerationFailed, KolosalError
from kolosal.schema import FinishReason, TokenDelta

if TYPE_CHECKING:
    from kolosal.engines.worker.file_cache import FileCache

_KEEP_PREFILL_CONTEXT_S = 60.0
"""How long an idle engine keeps the memory of its prefill context."""

_GATHER_S = 0.006
"""How long the first turn after a pause waits for the next of those whose answers ended with its own."""

_MOST_GATHER_S = 0.03
"""How long it waits for all of them."""

_RETURN_S = 0.25
"""Who has not come back after so long is no program that goes on at once."""

_STOP_WRITING_S = 2.0
"""How long a loop that was stopped goes on writing conversations to files."""

_Command: TypeAlias = Sequence | int | Ping | partial[None] | None


class EngineLoop:
    """The heart of a worker. `submit`, `abort`, `ping` and `stop` may be called from any thread."""

    def __init__(
        self,
        backend: Backend,
        emit: Callable[[FromWorker], None],
        *,
        target_step_s: float = 0.15,
        saved_bytes: int = 0,
        open_files: Callable[[SavedSequences, Callable[[partial[None]], None]], FileCache] | None = None,
        keep_prefill_context_s: float = _KEEP_PREFILL_CONTEXT_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend = backend
        self._emit = emit
        info = backend.info
        self._clock = clock
        self._target_step_s = target_step_s
        self._keep_prefill_context_s = keep_prefill_context_s
        self._worked_at = clock()
        self._cost, self._slice_cost = StepCost(), StepCost()
        self._cache = KVCache(info.kv_pool_tokens, backend.n_slots)
        limits = SchedulerLimits(
            n_parallel=info.n_parallel,
            n_batch=info.n_batch,
            n_prefill=info.n_ubatch,
            target_step_s=target_step_s,
            prefill_cells=backend.prefill_cells,
            cell_s=backend.cell_s,
        )
        reuse = Reuse(info.prompt_cache)
        self._saved = SavedSequences(saved_bytes, reuse)
        self._scheduler = Scheduler(
            self._cache,
            PrefixCache(reuse),
            limits,
            self._cost,
            self._slice_cost,
            self._saved,
            backend.control_tokens() if reuse is Reuse.WHOLE else frozenset(),
        )
        # Unbounded here: the daemon admits at most n_parallel + max_queued requests per engine.
        self._inbox: queue.SimpleQueue[_Command] = queue.SimpleQueue()  # None ends the loop
        self._files = None if open_files is None else open_files(self._saved, self._inbox.put)
        self._next_tokens = NextTokens(backend, self._scheduler)
        self._stopping = False
        self._saved_counts = self._said = SavedCounts()
        self._n_ended = 0  # sequences, in the last time in which there was work

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._inbox.put(sequence)

    def abort(self, request_id: int) -> None:
        """Free a request's sequence before the next step. Unknown ids are ignored."""
        self._inbox.put(request_id)

    def ping(self, ping: Ping) -> None:
        """Answer before the next step: what a loop that hangs does not do."""
        self._inbox.put(ping)

    def stop(self) -> None:
        """End `run` after the step at hand."""
        self._inbox.put(None)

    def run(self) -> None:
        """Work until stopped; sleep while there is nothing to do.

        Raises:
            IntegrityError: the KV cache's account and the backend differ.
        """
        while not self._stopping:
            self.step()
        self._write_rest()

    def step(self) -> None:
        """One turn: commands, then at most one batch; then a chunk of a long prompt, between whose layers further ones are taken."""
        self._wait_for_work()
        self._take_inbox()
        self._write_while_busy()
        computed = self._compute_batch()
        chunk = self._scheduler.begin_prefill()
        if chunk is not None:
            self._prefill(chunk)
        elif not computed and self._scheduler.fetching is not None:
            self._handle(self._inbox.get())  # nothing to do before the file was read
        if self._scheduler.has_work:
            self._worked_at = self._clock()

    # --- commands ---

    def _wait_for_work(self) -> None:
        if self._scheduler.has_work:
            if not self._scheduler.running:
                self._gather()
            return
        self._cache.check_integrity(self._backend.cells)
        if self._write_while_idle():
            return
        left_s = self._worked_at + self._keep_prefill_context_s - self._clock()
        idle_at = self._clock()
        try:  # pings come all the time, and are no work
            self._handle(self._inbox.get(timeout=max(left_s, 0)))
        except queue.Empty:
            self._backend.close_prefill_context()
            self._handle(self._inbox.get())
        if self._scheduler.has_work:
            if self._clock() - idle_at < _RETURN_S:
                self._gather()
            self._n_ended = 0

    def _gather(self) -> None:
        """Wait a moment for the others of those whose answers have just ended together: their prompts are best read in one step."""
        until = self._clock() + _MOST_GATHER_S
        with contextlib.suppress(queue.Empty):
            while len(self._scheduler.waiting) < self._n_ended and self._clock() < until:
                self._handle(self._inbox.get(timeout=_GATHER_S))
        self._n_ended = 0

    def _take_inbox(self) -> None:
        while not self._inbox.empty():
            self._handle(self._inbox.get())

    def _handle(self, command: _Command) -> None:
        match command:
            case Sequence():
                self._scheduler.add(command)
            case int():
                sequence = self._scheduler.find(command)
                if sequence is not None:
                    self._retire(sequence)
                    delta = TokenDelta("", finish_reason=FinishReason.ABORT, usage=sequence.usage())
                    self._emit(StepOutputs((SequenceOutput(command, delta),)))
            case Ping(number=number):
                self._emit(Pong(number))
            case partial():
                command()
            case None:
                self._stopping = True

    def _change_memory(self, operations: list[MemoryOp]) -> None:
        for operation in operations:
            match operation:
                case Release(slot=slot):
                    self._backend.release(slot)
                case Copy(source=source, slot=slot, n_cells=n_cells):
                    self._backend.copy(source, slot, n_cells)
                case Trim(slot=slot, n_cells=n_cells):
                    self._backend.trim(slot, n_cells)
                case Save(slot=slot, saved=saved):
                    self._save(slot, saved)

    # --- what outlives its cells ---

    def _save(self, slot: int, saved: Saved) -> None:
        started = self._clock()
        try:
            state = self._backend.save(slot)
        except (BackendError, MemoryError):
            self._saved.drop(saved)
        else:
            self._saved.commit(saved, state, self._clock() - started)
            self._saved_counts = replace(self._saved_counts, host_bytes=self._saved.n_bytes)

    def _restore(self) -> None:
        """Give its cells back to the next sequence, where they were saved."""
        while (restore := self._scheduler.begin_restore()) is not None:
            self._change_memory(restore.memory)
            started = self._clock()
            try:
                self._backend.restore(restore.slot, restore.state)
            except RestoreFailed:
                self._scheduler.give_up_restore(restore)
                continue
            if restore.n_cells < len(restore.saved.tokens):
                self._backend.trim(restore.slot, restore.n_cells)
            self._change_memory(self._scheduler.commit_restore(restore))
            self._count_restore(restore.n_cells, self._clock() - started)
            return
        self._read_wanted()

    # --- files ---

    def _read_wanted(self) -> None:
        """Begin to read the file that the next sequence waits for."""
        wanted = self._scheduler.fetching
        if self._files is not None and wanted is not None and not wanted.is_moving:
            self._files.fetch(wanted, self._scheduler.fetched)

    def _write_while_busy(self) -> None:
        if self._files is not None and self._clock() - self._files.began_at > self._files.busy_s:
            self._write_next(self._files)

    def _write_while_idle(self) -> bool:
        """Write what has been left alone for a while, until there is a command; returns whether one came."""
        while self._files is not None and self._files.may_write(self._clock()):
            rest_s = self._worked_at + self._files.rest_s - self._clock()
            try:
                self._handle(self._inbox.get(timeout=max(0.0, rest_s)))
            except queue.Empty:
                if not self._write_next(self._files):
                    return False
            else:
                return True
        return False

    def _write_next(self, files: FileCache) -> bool:
        """Begin to write a conversation that has no file; returns whether there was one."""
        if not files.may_write(self._clock()) or (found := self._next_unwritten()) is None:
            return False
        files.write(*found, self._clock())
        return True

    def _next_unwritten(self) -> tuple[Saved, memoryview] | None:
        """A conversation without a file, and its state: of those that have no cells any more first."""
        saved = self._saved.unwritten
        if saved is not None and saved.state is not None:
            return saved, saved.state
        found = self._scheduler.begin_file()
        if found is None:
            return None
        slot, saved = found
        started = self._clock()
        try:
            state = self._backend.save(slot)
        except (BackendError, MemoryError):
            self._saved.drop(saved)
            return None
        self._saved.observe(saved, state, self._clock() - started)
        return saved, state

    def _write_rest(self) -> None:
        """Write what has no file yet, before this process ends."""
        files, until = self._files, self._clock() + _STOP_WRITING_S
        if files is None:
            return
        files.finish(_STOP_WRITING_S)
        self._take_inbox()
        while files.may_write(now := self._clock()) and now < until:
            if (found := self._next_unwritten()) is None:
                return
            files.write_now(*found, now)

    def _count_restore(self, n_cells: int, seconds: float) -> None:
        instead_s = self._cost.seconds_of_prompt(n_cells, self._backend.info.n_ubatch)
        counts = self._saved_counts
        self._saved_counts = replace(
            counts,
            restores=counts.restores + 1,
            tokens=counts.tokens + n_cells,
            seconds=counts.seconds + max(0.0, instead_s - seconds),
        )

    # --- a long prompt ---

    def _prefill(self, chunk: Chunk) -> None:
        """Have the prefill context compute a chunk, while everybody else's steps go on between its layers."""
        slices = LayerSlices(self._target_step_s, self._clock)

        def between_layers() -> bool:
            is_due = slices.pause()
            self._take_inbox()
            if is_due:
                self._compute_batch()
            slices.resume(stepped=is_due)
            return self._scheduler.is_prefilling(chunk) and not self._stopping

        computed = False
        with contextlib.suppress(PrefillFailed):  # a step will try it, and say what is wrong
            computed = self._backend.prefill(chunk, between_layers)
        if computed:
            self._slice_cost.observe(Work().plus(chunk.start, len(chunk.tokens)), slices.mean_s)
            self._scheduler.commit_prefill(chunk)
        elif self._scheduler.is_prefilling(chunk):
            self._scheduler.give_up_prefill()

    # --- one batch ---

    def _compute_batch(self) -> bool:
        """Returns whether there was anything to compute."""
        self._restore()
        plan = self._scheduler.schedule()
        self._change_memory(plan.memory)
        if plan.chunks and self._decode(plan):
            self._scheduler.commit(plan)
            self._sample(plan)
        return bool(plan.chunks)

    def _decode(self, plan: Plan) -> bool:
        """Compute a plan; returns whether it was computed."""
        started = self._clock()
        try:
            self._backend.decode(plan.chunks)
        except KVCacheFull:
            if not self._scheduler.make_smaller(plan):
                error = GenerationFailed("The KV cache has no room for this request")
                self._fail(plan.chunks[0].sequence, error)
            self._change_memory(plan.memory)
            return False
        except DecodeFailed as exc:
            for chunk in plan.chunks:
                error = GenerationFailed(f"The model could not compute the next step: {exc}")
                self._fail(chunk.sequence, error)
            return False
        self._cost.observe(plan.work, self._clock() - started)
        return True

    def _sample(self, plan: Plan) -> None:
        outputs: list[SequenceOutput] = []
        row = 0
        for chunk in plan.chunks:
            if chunk.n_outputs:
                try:
                    delta = self._next_tokens.advance(chunk, row)
                except ConstraintFailed as exc:
                    self._fail(chunk.sequence, exc.error)
                else:
                    outputs.append(SequenceOutput(chunk.sequence.request_id, delta))
                    if delta.finish_reason is not None:
                        self._retire(chunk.sequence)
                row += chunk.n_outputs
        if outputs:
            used = self._cache.n_cells - self._cache.free_cells
            if self._files is not None:
                self._saved_counts = replace(self._saved_counts, disk_bytes=self._files.n_bytes)
            said, self._said = self._said, self._saved_counts
            self._emit(StepOutputs(tuple(outputs), used, None if said == self._said else self._said))

    # --- ends ---

    def _fail(self, sequence: Sequence, error: KolosalError) -> None:
        self._change_memory(self._scheduler.finish(sequence, keep=False))
        sequence.close()
        self._emit(failed(sequence.request_id, error))

    def _retire(self, sequence: Sequence) -> None:
        self._n_ended += 1
        self._change_memory(self._scheduler.finish(sequence, keep=True))
        sequence.close()
