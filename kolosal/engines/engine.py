"""Engine: one model and the worker process that serves it.

Owns the worker's life (created → loading → ready → …), the request ids and the demultiplexing of its frames to
`RequestStream`s. Used on the event loop only. Knows nothing of other engines: names and policy are the registry's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from enum import StrEnum
from typing import assert_never

from kolosal.engines.calls import Answer, Call
from kolosal.engines.messages import (
    Abort,
    Answered,
    Ask,
    EngineInfo,
    Failed,
    Fatal,
    FromWorker,
    Progress,
    Ready,
    SequenceOutput,
    StepOutputs,
    Submit,
)
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.process import WorkerCommand, WorkerProcess
from kolosal.engines.stream import RequestStream
from kolosal.errors import EngineDied, KolosalError, LoadFailed, NotFound, QueueFull, error_named
from kolosal.schema import GenerateRequest

log = logging.getLogger(__name__)


class EngineState(StrEnum):
    """Where an engine is in its life."""

    UNLOADED = "unloaded"
    """No worker: never loaded yet, or the worker ended. The next use loads."""
    LOADING = "loading"
    READY = "ready"
    CLOSED = "closed"
    """Removed. Streams that were running may still be finishing; nothing new starts."""


class Engine:
    """One model, loaded on demand.

    `ensure_ready` may be called by many at once and loads once; `generate` is synchronous, so that nothing can happen
    between the check and the submission; `close` is idempotent.
    """

    def __init__(self, config: EngineConfig, command: WorkerCommand, max_queued: int) -> None:
        self.config = config
        self.info: EngineInfo | None = None
        """What the worker got; None until it was loaded once."""
        self.state = EngineState.UNLOADED
        self.load_progress = 0.0
        """0…1 while loading, 1 once loaded."""
        self.last_error: str | None = None
        """Why the last load failed or the last worker ended; None after a good load."""
        self.created_at = time.time()
        """Unix time at which the engine was added."""
        self.last_used_at: float | None = None
        """Unix time of the last request."""
        self._command = command
        self._max_queued = max_queued
        self._worker: WorkerProcess | None = None
        self._load_task: asyncio.Task[None] | None = None
        self._streams: dict[int, RequestStream] = {}
        self._calls: dict[int, asyncio.Future[Answer]] = {}
        self._aborted: set[int] = (
            set()
        )  # aborted here, not yet confirmed by the worker: frames may be in flight
        self._request_ids = itertools.count(1)
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def engine_id(self) -> str:
        return self.config.engine_id

    @property
    def in_flight(self) -> int:
        """Generations and questions that have not ended."""
        return len(self._streams) + len(self._calls)

    @property
    def worker_pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    # --- loading ---

    async def ensure_ready(self) -> None:
        """Load the model unless it is loaded. A caller that leaves never cancels a load that others wait for.

        Raises:
            LoadFailed: the model cannot be loaded; the next call tries again.
            NotFound: the engine was removed.
        """
        if self.state is EngineState.READY:
            return
        if self.state is EngineState.CLOSED:
            raise self._removed()
        if self._load_task is None:
            self._load_task = asyncio.create_task(self._load(), name=f"load {self.engine_id}")
            self._load_task.add_done_callback(self._load_ended)
        load = self._load_task
        try:
            await asyncio.shield(load)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if load.cancelled() and me is not None and not me.cancelling():
                raise self._removed() from None  # the load was given up, not this caller
            raise

    async def _load(self) -> None:
        self.state = EngineState.LOADING
        self.load_progress = 0.0
        started = time.monotonic()
        try:
            self._worker, self.info = await WorkerProcess.launch(
                self._command,
                self.config,
                on_progress=self._note_progress,
                on_frame=self._on_frame,
                on_exit=self._on_exit,
            )
        except LoadFailed as exc:
            self.last_error = exc.message
            log.warning("engine.load_failed", extra={"engine_id": self.engine_id, "reason": exc.message})
            raise
        else:
            self.state = EngineState.READY
            self.load_progress = 1.0
            self.last_error = None
            fields = {
                "engine_id": self.engine_id,
                "pid": self._worker.pid,
                "load_s": round(time.monotonic() - started, 3),
            }
            log.info("engine.loaded", extra=fields)
        finally:
            if self.state is EngineState.LOADING:
                self.state = EngineState.UNLOADED

    def _load_ended(self, task: asyncio.Task[None]) -> None:
        self._load_task = None
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it, and `last_error` keeps it

    def _note_progress(self, fraction: float) -> None:
        self.load_progress = fraction

    # --- generating ---

    def generate(self, request: GenerateRequest) -> RequestStream:
        """Submit a request to the loaded model.

        Raises:
            EngineDied: there is no worker (any more).
            QueueFull: as many requests wait as may.
        """
        worker = self._admit()
        request_id = next(self._request_ids)
        stream = RequestStream(lambda: self._abort(request_id))
        worker.send(Submit(request_id, request))
        self._streams[request_id] = stream
        self._idle.clear()
        return stream

    async def ask(self, call: Call) -> Answer:
        """Ask the loaded model something that is no generation. A caller that leaves takes its question back.

        Raises:
            EngineDied: there is no worker (any more).
            QueueFull: as many requests wait as may.
            KolosalError: the question was refused.
        """
        worker = self._admit()
        request_id = next(self._request_ids)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        worker.send(Ask(request_id, call))
        self._calls[request_id] = answer
        self._idle.clear()
        try:
            return await answer
        finally:
            self._abort(request_id)

    def _admit(self) -> WorkerProcess:
        """The worker that takes one more request."""
        if self.state is not EngineState.READY or self._worker is None or self.info is None:
            raise EngineDied(f"Engine '{self.engine_id}' is not loaded")
        limit = self.info.n_parallel + self._max_queued
        if self.in_flight >= limit:
            raise QueueFull(
                f"Engine '{self.engine_id}' has {limit} requests running and waiting, as many as it may"
            )
        self.last_used_at = time.time()
        return self._worker

    def _abort(self, request_id: int) -> None:
        if self._worker is not None and (request_id in self._streams or request_id in self._calls):
            self._aborted.add(request_id)
            self._worker.send(Abort(request_id))
            self._forget(request_id)

    def _forget(self, request_id: int) -> RequestStream | asyncio.Future[Answer] | None:
        waiting = self._streams.pop(request_id, None) or self._calls.pop(request_id, None)
        if not self.in_flight:
            self._idle.set()
        return waiting

    def _on_frame(self, frame: FromWorker) -> None:
        match frame:
            case StepOutputs(outputs=outputs):
                for output in outputs:
                    self._on_output(output)
            case Answered(request_id=request_id, answer=answer):
                self._on_end(request_id, answer)
            case Failed(request_id=request_id):
                self._on_end(request_id, error_named(frame.error, frame.message, param=frame.param))
            case Ready() | Progress() | Fatal():
                self._distrust(f"an unexpected {frame.tag} frame")
            case _:
                assert_never(frame)

    def _on_output(self, output: SequenceOutput) -> None:
        ended = output.delta.finish_reason is not None
        stream = self._streams.get(output.request_id)
        if stream is not None:
            stream.put(output.delta)
            if ended:
                self._forget(output.request_id)
        elif output.request_id not in self._aborted:
            self._distrust(f"output for request {output.request_id}, which it was not given")
        elif ended:
            self._aborted.discard(output.request_id)

    def _on_end(self, request_id: int, end: Answer | KolosalError) -> None:
        """A question was answered, or it or a generation failed."""
        waiting = self._streams.get(request_id) or self._calls.get(request_id)
        if waiting is None and request_id in self._aborted:
            self._aborted.discard(request_id)
        elif isinstance(waiting, RequestStream) and isinstance(end, KolosalError):
            self._forget(request_id)
            waiting.fail(end)
        elif isinstance(waiting, asyncio.Future):
            self._forget(request_id)
            _settle(waiting, end)
        else:
            self._distrust(f"an end of request {request_id}, which it was not given")

    def _distrust(self, what: str) -> None:
        """The worker broke the protocol: its memory may be corrupt, so it ends here. Its streams learn it at once."""
        log.error("worker.broke_protocol", extra={"engine_id": self.engine_id, "what": what})
        if self._worker is not None:
            self._worker.kill()

    def _on_exit(self, reason: str) -> None:
        self._worker = None
        if self.state is not EngineState.CLOSED:
            self.state = EngineState.UNLOADED
            self.last_error = reason
            log.error(
                "engine.died",
                extra={"engine_id": self.engine_id, "reason": reason, "streams": self.in_flight},
            )
        self._aborted.clear()
        for request_id in (*self._streams, *self._calls):
            match self._forget(request_id):
                case RequestStream() as stream:
                    stream.fail(self._died(reason))
                case asyncio.Future() as answer:
                    _settle(answer, self._died(reason))

    # --- ending ---

    async def drain(self) -> None:
        """Refuse new requests and wait until the running ones have ended."""
        self.state = EngineState.CLOSED
        await self._idle.wait()

    async def close(self) -> None:
        """End the worker and free the model. Streams that still run fail."""
        self.state = EngineState.CLOSED
        if self._load_task is not None:
            if not self._load_task.cancelling():  # a second cancel would cut short the end of its worker
                self._load_task.cancel()
            await asyncio.wait([self._load_task])
        if self._worker is not None:
            await self._worker.stop()
            log.info("engine.closed", extra={"engine_id": self.engine_id})

    def _died(self, reason: str) -> EngineDied:
        if self.state is EngineState.CLOSED:
            return EngineDied(f"Engine '{self.engine_id}' was shut down before it had finished answering")
        return EngineDied(f"Engine '{self.engine_id}' stopped while it was answering. {reason}")

    def _removed(self) -> NotFound:
        return NotFound(f"Engine '{self.engine_id}' was removed", param="engine_id")


def _settle(answer: asyncio.Future[Answer], end: Answer | KolosalError) -> None:
    if answer.done():  # its caller left
        return
    if isinstance(end, KolosalError):
        answer.set_exception(end)
    else:
        answer.set_result(end)
