"""EngineLoop: take what came in → schedule → decode → sample → emit, one step at a time.

Runs on the engine thread, which alone touches the context, the scheduler and the books. Others talk to it through
`submit`, `abort` and `stop`, and hear from it through the `emit` callback.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from kolosal.engines.messages import Failed, FromWorker, SequenceOutput, StepOutputs
from kolosal.engines.worker.backend import Backend, DecodeFailed, KVCacheFull
from kolosal.engines.worker.kvcache import KVCache
from kolosal.engines.worker.scheduler import Plan, Scheduler
from kolosal.engines.worker.sequence import Sequence
from kolosal.schema import FinishReason, TokenDelta


class _Stop:
    """Put into the inbox to end the loop."""


class EngineLoop:
    """The heart of a worker. `submit`, `abort` and `stop` may be called from any thread."""

    def __init__(self, backend: Backend, emit: Callable[[FromWorker], None]) -> None:
        self._backend = backend
        self._emit = emit
        info = backend.info
        self._cache = KVCache(info.kv_pool_tokens, info.n_parallel)
        self._scheduler = Scheduler(self._cache, n_batch=info.n_batch)
        # Unbounded here: the daemon admits at most n_parallel + max_queued requests per engine.
        self._inbox: queue.SimpleQueue[Sequence | int | _Stop] = queue.SimpleQueue()
        self._stopping = False

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._inbox.put(sequence)

    def abort(self, request_id: int) -> None:
        """Free a request's sequence before the next step. Unknown ids are ignored."""
        self._inbox.put(request_id)

    def stop(self) -> None:
        """End `run` after the step at hand."""
        self._inbox.put(_Stop())

    def run(self) -> None:
        """Work until stopped; sleep while there is nothing to do.

        Raises:
            IntegrityError: the books and the backend differ.
        """
        while not self._stopping:
            self.step()

    def step(self) -> None:
        """One turn: commands, then at most one batch."""
        self._take_inbox()
        plan = self._scheduler.schedule()
        for slot in plan.released:
            self._backend.release(slot)
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

    def _handle(self, command: Sequence | int | _Stop) -> None:
        match command:
            case Sequence():
                self._scheduler.add(command)
            case int():
                sequence = self._scheduler.find(command)
                if sequence is not None:
                    self._retire(sequence)
                    delta = TokenDelta("", finish_reason=FinishReason.ABORT, usage=sequence.usage())
                    self._emit(StepOutputs((SequenceOutput(command, delta),)))
            case _Stop():
                self._stopping = True

    # --- one batch ---

    def _decode(self, plan: Plan) -> bool:
        """Compute a plan; returns whether it was computed."""
        try:
            self._backend.decode(plan.chunks)
        except KVCacheFull:
            slot = self._scheduler.preempt_youngest()
            if slot is None:
                self._fail(plan.chunks[0].sequence, "The KV cache has no room for this request")
            else:
                self._backend.release(slot)
            return False
        except DecodeFailed as exc:
            for chunk in plan.chunks:
                self._fail(chunk.sequence, f"The model could not compute the next step: {exc}")
            return False
        return True

    def _sample(self, plan: Plan) -> None:
        outputs: list[SequenceOutput] = []
        row = 0
        for chunk in plan.chunks:
            if chunk.wants_output:
                sequence = chunk.sequence
                token = self._backend.sample(sequence.sampler, row)
                outputs.append(SequenceOutput(sequence.request_id, self._extend(sequence, token)))
                row += 1
        if outputs:
            self._emit(StepOutputs(tuple(outputs)))

    def _extend(self, sequence: Sequence, token: int) -> TokenDelta:
        """Add a sampled token; retire the sequence when it was the last."""
        sequence.tokens.append(token)
        if self._backend.is_end(token) and not sequence.ignore_eos:
            return self._finish(sequence, token, sequence.text.flush(), FinishReason.STOP)
        text = sequence.text.push(self._backend.token_bytes(token))
        if sequence.text.stopped:
            return self._finish(sequence, token, text, FinishReason.STOP)
        if len(sequence.tokens) >= sequence.max_length:
            return self._finish(sequence, token, text + sequence.text.flush(), FinishReason.LENGTH)
        return TokenDelta(text, (token,))

    def _finish(self, sequence: Sequence, token: int, text: str, reason: FinishReason) -> TokenDelta:
        self._retire(sequence)
        return TokenDelta(text, (token,), reason, sequence.usage())

    def _fail(self, sequence: Sequence, message: str) -> None:
        self._retire(sequence)
        self._emit(Failed(sequence.request_id, "GenerationFailed", message))

    def _retire(self, sequence: Sequence) -> None:
        slot = self._scheduler.remove(sequence)
        if slot is not None:
            self._backend.release(slot)
        sequence.sampler.close()
