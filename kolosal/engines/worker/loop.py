"""EngineLoop: take what came in → schedule → decode → sample → emit, one step at a time.

Continuous batching (Orca, OSDI 2022): sequences join and leave between steps. Runs on the engine thread, which alone touches
the context, the scheduler and the KV cache. Others talk to it through `submit`, `abort`, `ping` and `stop`, and hear from it
through the `emit` callback.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

from kolosal.engines.ipc.messages import Failed, FromWorker, Ping, Pong, SequenceOutput, StepOutputs
from kolosal.engines.worker.backend import Backend, DecodeFailed, KVCacheFull, Reuse, RowLogprobs
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.plan import Chunk, Copy, MemoryOp, Plan, Release
from kolosal.engines.worker.schedule.prefix_cache import PrefixCache
from kolosal.engines.worker.schedule.scheduler import Scheduler, SchedulerLimits
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import StepCost
from kolosal.schema import FinishReason, TokenDelta, TokenLogprob, TokenLogprobs


class EngineLoop:
    """The heart of a worker. `submit`, `abort`, `ping` and `stop` may be called from any thread."""

    def __init__(
        self, backend: Backend, emit: Callable[[FromWorker], None], *, target_step_s: float = 0.15
    ) -> None:
        self._backend = backend
        self._emit = emit
        info = backend.info
        self._cost = StepCost()
        self._cache = KVCache(info.kv_pool_tokens, backend.n_slots)
        limits = SchedulerLimits(
            n_parallel=info.n_parallel,
            n_batch=info.n_batch,
            n_prefill=info.n_ubatch,
            target_step_s=target_step_s,
        )
        self._scheduler = Scheduler(self._cache, PrefixCache(Reuse(info.prompt_cache)), limits, self._cost)
        # Unbounded here: the daemon admits at most n_parallel + max_queued requests per engine.
        self._inbox: queue.SimpleQueue[Sequence | int | Ping | None] = (
            queue.SimpleQueue()
        )  # None ends the loop
        self._stopping = False

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

    def step(self) -> None:
        """One turn: commands, then at most one batch."""
        self._take_inbox()
        plan = self._scheduler.schedule()
        self._change_memory(plan.memory)
        if plan.chunks and self._decode(plan):
            self._scheduler.commit(plan)
            self._sample(plan)

    # --- commands ---

    def _take_inbox(self) -> None:
        if not self._scheduler.has_work:
            self._cache.check_integrity(self._backend.cells)
            self._handle(self._inbox.get())
        while not self._inbox.empty():
            self._handle(self._inbox.get())

    def _handle(self, command: Sequence | int | Ping | None) -> None:
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
            case None:
                self._stopping = True

    def _change_memory(self, operations: list[MemoryOp]) -> None:
        for operation in operations:
            match operation:
                case Release(slot=slot):
                    self._backend.release(slot)
                case Copy(source=source, slot=slot, n_cells=n_cells):
                    self._backend.copy(source, slot, n_cells)

    # --- one batch ---

    def _decode(self, plan: Plan) -> bool:
        """Compute a plan; returns whether it was computed."""
        started = time.perf_counter()
        try:
            self._backend.decode(plan.chunks)
        except KVCacheFull:
            if not self._scheduler.make_smaller(plan):
                self._fail(plan.chunks[0].sequence, "The KV cache has no room for this request")
            self._change_memory(plan.memory)
            return False
        except DecodeFailed as exc:
            for chunk in plan.chunks:
                self._fail(chunk.sequence, f"The model could not compute the next step: {exc}")
            return False
        self._cost.observe(plan.n_tokens, time.perf_counter() - started)
        return True

    def _sample(self, plan: Plan) -> None:
        outputs: list[SequenceOutput] = []
        row = 0
        for chunk in plan.chunks:
            if chunk.n_outputs:
                outputs.append(SequenceOutput(chunk.sequence.request_id, self._advance(chunk, row)))
                row += chunk.n_outputs
        if outputs:
            used = self._cache.n_cells - self._cache.free_cells
            self._emit(StepOutputs(tuple(outputs), used))

    def _advance(self, chunk: Chunk, row: int) -> TokenDelta:
        """What the rows of a sequence say: about its prompt, where that is reported, then its next tokens; retire it when
        it ends."""
        sequence = chunk.sequence
        n_reported = chunk.n_prompt_rows
        logprobs = self._report_prompt(chunk, row, n_reported) if sequence.prompt_logprobs else []
        if n_reported == chunk.n_outputs:
            return TokenDelta("", logprobs=tuple(logprobs))
        if len(sequence.tokens) >= sequence.max_length:  # nothing but its prompt was asked about
            self._retire(sequence)
            return TokenDelta("", (), FinishReason.LENGTH, sequence.usage(), tuple(logprobs))
        return self._generate(sequence, range(row + n_reported, row + chunk.n_outputs), logprobs)

    def _report_prompt(self, chunk: Chunk, row: int, n_rows: int) -> list[TokenLogprobs]:
        """The prompt's tokens that stand after rows of a chunk; the first token of all, too."""
        sequence = chunk.sequence
        first = TokenLogprobs(self._token_logprob(sequence.tokens[0], 0.0), (), in_prompt=True)
        reports = [] if sequence.n_logged else [first]  # which nothing predicts
        token_after = chunk.start + len(chunk.tokens) - chunk.n_outputs + 1
        for index in range(n_rows):
            logprobs = self._backend.row_logprobs(row + index, sequence.n_top or 0)
            token = sequence.tokens[token_after + index]
            reports.append(self._token_logprobs(logprobs, token, in_prompt=True))
        sequence.n_logged += len(reports)
        return reports

    def _generate(self, sequence: Sequence, rows: range, logprobs: list[TokenLogprobs]) -> TokenDelta:
        """Sample the next token, and go on while draft tokens are accepted; adds to `logprobs` where they are asked for."""
        draft, n_before = sequence.draft, len(sequence.tokens)
        text, reason = "", None
        for index, row in enumerate(rows):
            row_logprobs = None if sequence.n_top is None else self._backend.row_logprobs(row, sequence.n_top)
            token = self._backend.sample(sequence.sampler, row, sequence.constraint)
            piece, reason = self._extend(sequence, token)
            text += piece
            if row_logprobs is not None:
                logprobs.append(self._token_logprobs(row_logprobs, token))
            if reason is not None or index >= len(draft) or draft[index] != token:
                break
        tokens = sequence.tokens[n_before:]
        if draft:
            self._verify_draft(sequence, n_before, tokens)
        elif sequence.speculator is not None:
            sequence.speculator.extend(tokens)
        if reason is None:  # the first tokens say how long the prompt is, and how much of it was found
            usage = sequence.usage() if n_before == sequence.n_prompt else None
            return TokenDelta(text, tuple(tokens), usage=usage, logprobs=tuple(logprobs))
        self._retire(sequence)
        stop = sequence.text.stop
        return TokenDelta(text, tuple(tokens), reason, sequence.usage(), tuple(logprobs), stop)

    def _verify_draft(self, sequence: Sequence, n_before: int, tokens: list[int]) -> None:
        """Keep the cells of accepted draft tokens, cut off the others, and let the sequence learn from both."""
        n_kept = len(tokens) - 1
        n_accepted = n_kept + (sequence.draft[n_kept : n_kept + 1] == tokens[-1:])
        sequence.n_computed = n_before + n_kept
        n_cells = self._scheduler.trim(sequence)
        if n_cells is not None and sequence.slot is not None:
            self._backend.trim(sequence.slot, n_cells)
        if sequence.speculator is not None:
            sequence.speculator.observe(len(sequence.draft), n_accepted)
            sequence.speculator.extend(tokens)
        sequence.draft = []

    def _extend(self, sequence: Sequence, token: int) -> tuple[str, FinishReason | None]:
        """Add a sampled token, and those the grammar then forces; returns the text to show and why it ends, if it does."""
        constraint = sequence.constraint
        if self._backend.is_end(token) and (constraint is not None or not sequence.ignore_eos):
            sequence.tokens.append(token)
            return sequence.text.flush(), FinishReason.STOP
        tokens = [token]
        if constraint is not None:
            constraint.accept(token)
            if sequence.n_top is None:  # else each is sampled: its log-probability needs a row of its own
                tokens += constraint.forced()
        text = ""
        for index, each in enumerate(tokens):
            sequence.tokens.append(each)
            if index:
                sequence.sampler.accept(each)
            text += sequence.text.push(sequence.text.markers.get(each) or self._backend.token_bytes(each))
            if sequence.text.stop is not None:
                return text, FinishReason.STOP
            if len(sequence.tokens) >= sequence.max_length:
                return text + sequence.text.flush(), FinishReason.LENGTH
        if constraint is not None and constraint.finished:
            return text + sequence.text.flush(), FinishReason.STOP
        return text, None

    def _token_logprobs(self, row: RowLogprobs, token: int, *, in_prompt: bool = False) -> TokenLogprobs:
        """A token that stands after a row, with the most probable ones in its place."""
        top = tuple(self._token_logprob(other, logprob) for other, logprob in row.top)
        return TokenLogprobs(self._token_logprob(token, row.of(token)), top, in_prompt)

    def _token_logprob(self, token: int, logprob: float) -> TokenLogprob:
        data = self._backend.token_bytes(token)
        piece = data or self._backend.written(token)
        return TokenLogprob(token, piece.decode("latin-1"), logprob, control=not data)

    # --- ends ---

    def _fail(self, sequence: Sequence, message: str) -> None:
        self._change_memory(self._scheduler.finish(sequence, keep=False))
        sequence.close()
        self._emit(Failed(sequence.request_id, "GenerationFailed", message))

    def _retire(self, sequence: Sequence) -> None:
        self._change_memory(self._scheduler.finish(sequence, keep=True))
        sequence.close()
