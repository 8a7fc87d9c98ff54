"""Engine: one model and the worker process that serves it.

Owns the worker's life (created → loading → ready → …) and what follows from its death: another worker, which goes on with
what was in flight. Used on the event loop only. Knows nothing of other engines: names and policy are the registry's.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Protocol

from kolosal.engines.in_flight import MAX_CRASHES, InFlightCall, InFlightGeneration, InFlightRequests
from kolosal.engines.ipc.calls import Call, CallResult
from kolosal.engines.ipc.messages import Abort, EngineInfo, FromWorker, StepOutputs, Submit
from kolosal.engines.ipc.process import WorkerCommand, WorkerProcess
from kolosal.engines.memory.policy import DEFAULT_RULES, Rules, idle_limit
from kolosal.engines.parameters import EngineConfig
from kolosal.engines.restart import BreakerState, Restarts
from kolosal.engines.stream import RequestStream
from kolosal.errors import EngineDied, InsufficientMemory, KolosalError, LoadFailed, NotFound, QueueFull
from kolosal.observe.counts import Outcome
from kolosal.observe.logtail import LogTail
from kolosal.observe.observer import Observer
from kolosal.schema import GenerateRequest

log = logging.getLogger(__name__)

_TIMES = f"{MAX_CRASHES} times in a row"


class Launcher(Protocol):
    """What starts a worker: `WorkerProcess.launch`, or the registry's, which makes room for it first."""

    async def __call__(
        self,
        config: EngineConfig,
        *,
        on_progress: Callable[[float], None],
        on_frame: Callable[[FromWorker], None],
        on_exit: Callable[[str], None],
        on_stderr: Callable[[bytes], None],
    ) -> tuple[WorkerProcess, EngineInfo]: ...


class EngineState(StrEnum):
    """Where an engine is in its life."""

    UNLOADED = "unloaded"
    """No worker: never loaded yet, or the worker ended. The next use loads."""
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    """Its worker is being ended to free memory. A request that comes now waits for that, then loads again."""
    CLOSED = "closed"
    """Removed. Streams that were running may still be finishing; nothing new starts."""


class Engine:
    """One model, loaded on demand.

    `ensure_ready` may be called by many at once and loads once; `generate` is synchronous, so that nothing can happen
    between the check and the submission; `close` is idempotent.
    """

    _state = EngineState.UNLOADED
    _load_progress = 0.0
    _replaced = False

    def __init__(
        self,
        config: EngineConfig,
        command: WorkerCommand,
        max_queued: int,
        *,
        rules: Rules = DEFAULT_RULES,
        launcher: Launcher | None = None,
    ) -> None:
        self.config = config
        self.observer = Observer()
        """What this engine tells; the registry gives all engines its own."""
        self.logs = LogTail()
        """What its workers wrote to stderr."""
        self.kv_cells: int | None = None
        """Cells of the KV cache in use, finished conversations included; None until the worker said."""
        self.info: EngineInfo | None = None
        """What the worker got; None until it was loaded once."""
        self._most_cells = 0
        """Cells of the KV cache that were in use at once since its worker was started, as far as it said."""
        self.state = EngineState.UNLOADED
        self.last_error: str | None = None
        """Why the last load failed or the last worker ended; None after a good load."""
        self.created_at = time.time()
        """Unix time at which the engine was added."""
        self.last_used_at: float | None = None
        """Unix time of the last request."""
        self.rules = rules
        """How long it stays in memory."""
        self.on_change: Callable[[], None] = _nothing
        """Called when it may have become idle or has lost its worker."""
        self._launcher: Launcher = launcher or partial(WorkerProcess.launch, command)
        self._max_queued = max_queued if rules.max_queued is None else rules.max_queued
        self._keep_alive_s: float | None = None
        self._worker: WorkerProcess | None = None
        self._load_task: asyncio.Task[None] | None = None
        self._unload_task: asyncio.Task[None] | None = None
        self._waiting = 0
        """Callers of `ensure_ready` that have not gone on yet: they are about to use the engine."""
        self._requests = InFlightRequests(self._on_empty)
        self._restarts = Restarts(command.settings, command.restart_delays_s)
        self._forgiven = asyncio.Event()
        self._closing = False

    @property
    def engine_id(self) -> str:
        return self.config.engine_id

    @property
    def in_flight(self) -> int:
        """Generations and calls that have not ended."""
        return len(self._requests)

    @property
    def busy(self) -> bool:
        """Whether anybody uses it, or is about to: then it stays in memory."""
        return self.in_flight > 0 or self._waiting > 0

    @property
    def worker_pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    @property
    def unused_bytes(self) -> int:
        """Host memory that its worker may still fill without asking, though the system counts it as free.

        At least: a cell that was used once is counted as filled.
        """
        if self._worker is None or self.info is None:
            return 0
        share = max(0.0, 1 - self._most_cells / max(1, self.info.kv_pool_tokens))
        return int(self.info.unused_bytes * share)

    @property
    def breaker(self) -> BreakerState:
        """Whether a worker may be started."""
        return self._restarts.state(time.monotonic())

    @property
    def recent_deaths(self) -> int:
        """How often its worker died, or did not get ready, within the window of the breaker."""
        return self._restarts.deaths(time.monotonic())

    @property
    def retry_after_s(self) -> int | None:
        """Seconds until a worker may be started; None where it may now."""
        return self._restarts.retry_after_s(time.monotonic())

    # --- observing ---

    def observe(self, observer: Observer) -> None:
        """Tell another observer from now on, first of the state."""
        self.observer = observer
        observer.engine_state(self.engine_id, self._state, None, self.last_error)

    def replaced(self) -> None:
        """Tell no more of its state: its name is another engine's. Its requests are still counted."""
        self._replaced = True

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life. Whoever sets `last_error` as well sets it first, so that both are told."""
        return self._state

    @state.setter
    def state(self, state: EngineState) -> None:
        before, self._state = self._state, state
        if state is not before and not self._replaced:
            self.observer.engine_state(self.engine_id, state, before, self.last_error)

    @property
    def load_progress(self) -> float:
        """0…1 while loading, 1 once loaded."""
        return self._load_progress

    @load_progress.setter
    def load_progress(self, fraction: float) -> None:
        self._load_progress = fraction
        if self._state is EngineState.LOADING and not self._replaced:
            self.observer.load_progress(self.engine_id, fraction)

    # --- loading ---

    async def ensure_ready(self) -> None:
        """Load the model unless it is loaded. A caller that leaves never cancels a load that others wait for.

        Raises:
            LoadFailed: the model cannot be loaded; the next call tries again.
            EngineDied: its worker died too often lately; `retry_after_s` says when to come back.
            NotFound: the engine was removed.
        """
        self._waiting += 1
        try:
            while self.state is not EngineState.READY:
                if self._unload_task is not None:
                    await asyncio.wait([self._unload_task])
                else:
                    await self._join_load()
        finally:
            self._waiting -= 1
            self.on_change()

    async def _join_load(self) -> None:
        if self.state is EngineState.CLOSED:
            raise self._removed()
        load = self._load_task
        if load is None or load.done():
            load = self._start_load()
        try:
            await asyncio.shield(load)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if load.cancelled() and me is not None and not me.cancelling():
                raise self._load_given_up() from None  # the load was, not this caller
            raise

    def forgive(self) -> None:
        """Forget how often the worker died: for those who ask for a start in so many words."""
        self._restarts.reset()
        self._forgiven.set()

    def _start_load(self) -> asyncio.Task[None]:
        self.load_progress = 0.0
        if self.state is not EngineState.CLOSED:  # one that drains starts a worker for what is in flight
            self.state = EngineState.LOADING
        # In a context of its own: what the worker does later is not the work of the request that loads.
        self._load_task = asyncio.create_task(
            self._load(), name=f"load {self.engine_id}", context=contextvars.Context()
        )
        self._load_task.add_done_callback(self._load_ended)
        return self._load_task

    async def _load(self) -> None:
        """Start a worker; while requests are in flight, again and again until one is ready or the breaker opens."""
        try:
            while self._worker is None:
                self._check_breaker()
                await self._wait_for_turn()
                try:
                    await self._launch()
                except (LoadFailed, InsufficientMemory) as exc:
                    self._note_failed_load(exc)
                    if not self.in_flight:
                        raise
        except BaseException as exc:
            self._requests.fail_all(exc if isinstance(exc, KolosalError) else self._cut_short())
            raise
        finally:
            if self.state is EngineState.LOADING:
                self.state = EngineState.UNLOADED

    async def _launch(self) -> None:
        self.load_progress = 0.0
        started = time.monotonic()
        self._worker, self.info = await self._launcher(
            self.config,
            on_progress=self._note_progress,
            on_frame=self._on_frame,
            on_exit=self._on_exit,
            on_stderr=self.logs.feed,
        )
        self.last_error = None
        if self.state is EngineState.LOADING:
            self.state = EngineState.READY
        self.load_progress = 1.0
        now = time.monotonic()
        self._restarts.started(now)
        fields = {"engine_id": self.engine_id, "pid": self._worker.pid, "load_s": round(now - started, 3)}
        log.info("engine.loaded", extra=fields | {"resumed": self.in_flight})
        self._requests.n_ctx = self.info.n_ctx
        self._resume(self._worker)

    def _resume(self, worker: WorkerProcess) -> None:
        """Give a new worker what the last one left."""
        for request_id, request in self._requests.items():
            try:
                worker.send(request.frame(request_id))
            except KolosalError as exc:
                self._requests.fail(request_id, exc)

    async def _wait_for_turn(self) -> None:
        self._forgiven.clear()
        wait_s = self._restarts.wait_s(time.monotonic())
        if wait_s > 0:
            log.info("engine.waiting", extra={"engine_id": self.engine_id, "wait_s": round(wait_s, 3)})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._forgiven.wait(), wait_s)

    def _note_failed_load(self, error: LoadFailed | InsufficientMemory) -> None:
        in_vain = isinstance(error, LoadFailed) and error.worker_started
        if in_vain or self.in_flight:
            self._restarts.died(time.monotonic())
        if in_vain or self.busy:  # else it was given up because nobody waited any more, which is no fault
            self.last_error = error.message
        log.warning("engine.load_failed", extra={"engine_id": self.engine_id, "reason": error.message})

    def _check_breaker(self) -> None:
        retry_after_s = self.retry_after_s
        if retry_after_s is not None:
            raise EngineDied(
                f"Engine '{self.engine_id}' keeps stopping and is not started again for {retry_after_s} s."
                f" {self.last_error}",
                retry_after_s=retry_after_s,
            )

    def _load_ended(self, task: asyncio.Task[None]) -> None:
        if self._load_task is task:
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
            PayloadTooLarge: it is longer than a frame may be.
        """
        worker = self._admit()
        request_id = self._requests.next_id()
        worker.send(Submit(request_id, request))
        stream = RequestStream(lambda: self._abort(request_id), self.observer.begin(self.engine_id))
        self._requests.add(request_id, InFlightGeneration(request, stream))
        return stream

    async def call(self, call: Call) -> CallResult:
        """Have the loaded model do something that is no generation. A caller that leaves aborts the call.

        Raises:
            EngineDied: there is no worker (any more).
            QueueFull: as many requests wait as may.
            PayloadTooLarge: it is longer than a frame may be.
            KolosalError: the call was refused.
        """
        worker = self._admit()
        request_id = self._requests.next_id()
        request = InFlightCall(call)
        worker.send(request.frame(request_id))
        self._requests.add(request_id, request)
        try:
            return await request.result
        finally:
            self._abort(request_id)
            self.observer.call_ended(self.engine_id, call.kind, _outcome(request.result))

    def _admit(self) -> WorkerProcess:
        """The worker that takes one more request."""
        if self.state is not EngineState.READY or self._worker is None or self.info is None:
            raise EngineDied(f"Engine '{self.engine_id}' is not loaded")
        limit = self.info.n_parallel + self._max_queued
        if self.in_flight >= limit:
            raise QueueFull(
                f"Engine '{self.engine_id}' has {limit} requests running and waiting, as many as it may",
                retry_after_s=self.observer.place_free_in_s(self.engine_id, self.info.n_parallel),
            )
        self._keep_alive_s = None
        self.last_used_at = time.time()
        return self._worker

    def _abort(self, request_id: int) -> None:
        """Give up a request; while no worker runs there is nobody to tell."""
        worker = self._worker
        if self._requests.abort(request_id, worker_lives=worker is not None) and worker is not None:
            worker.send(Abort(request_id))

    def _on_frame(self, frame: FromWorker) -> None:
        self._requests.take(frame)
        if isinstance(frame, StepOutputs) and frame.kv_cells is not None:
            self.kv_cells = frame.kv_cells
            self._most_cells = max(self._most_cells, frame.kv_cells)

    def _on_empty(self) -> None:
        self.on_change()

    def _on_exit(self, reason: str) -> None:
        self._worker = None
        self.kv_cells = None
        self._most_cells = 0
        if self._closing or self.state is EngineState.UNLOADING:
            self._requests.fail_all(self._cut_short())
            if not self._closing:
                self.state = EngineState.UNLOADED
        else:
            self._on_death(reason)
        self.on_change()

    def _on_death(self, reason: str) -> None:
        """Fail what has gone down with a worker before; for the rest, start another."""
        self._restarts.died(time.monotonic())
        self.last_error = reason
        if self.state is EngineState.READY:
            self.state = EngineState.UNLOADED
        fields = {"engine_id": self.engine_id, "reason": reason, "streams": self.in_flight}
        log.error("engine.died", extra=fields)
        for request in self._requests.take_crashed():
            request.fail(
                EngineDied(f"Engine '{self.engine_id}' stopped while it was answering, {_TIMES}. {reason}")
            )
        if self.in_flight:
            self._start_load()

    # --- ending ---

    def keep_alive(self, seconds: float | None) -> None:
        """Say how long the engine stays in memory once it is idle; None: as its rules say.

        Called after `generate`: the last request decides. Less than 0 is for ever, 0 unloads after the answer.
        """
        self._keep_alive_s = seconds
        self.on_change()

    def idle_limit_s(self, default_s: float) -> float | None:
        """Seconds it stays in memory once it is idle; None: until its room is needed. `default_s` is the daemon's own."""
        return idle_limit(self.rules, self._keep_alive_s, default_s)

    def unload(self) -> asyncio.Future[None]:
        """End the worker and keep the engine: the next use loads again. From now on nothing is submitted.

        A load under way is given up, streams that still run fail. Idempotent; returns what ends when the memory is
        free. Awaiting that is optional, and whoever does shields it.
        """
        if self._unload_task is None:
            if self.state not in (EngineState.LOADING, EngineState.READY):
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                done.set_result(None)
                return done
            self.state = EngineState.UNLOADING
            self._unload_task = asyncio.create_task(self._unload(), name=f"unload {self.engine_id}")
            self._unload_task.add_done_callback(self._unload_ended)
        return self._unload_task

    async def _unload(self) -> None:
        await self._give_up_load()
        if self._worker is not None:
            await self._worker.stop()
        if self.state is EngineState.UNLOADING:
            self.state = EngineState.UNLOADED
        self.load_progress = 0.0
        log.info("engine.unloaded", extra={"engine_id": self.engine_id})

    def _unload_ended(self, _task: asyncio.Task[None]) -> None:
        self._unload_task = None
        self.on_change()

    async def _give_up_load(self) -> None:
        if self._load_task is not None:
            if not self._load_task.cancelling():  # a second cancel would cut short the end of its worker
                self._load_task.cancel()
            await asyncio.wait([self._load_task])

    async def drain(self) -> None:
        """Refuse new requests and wait until the running ones have ended."""
        self.state = EngineState.CLOSED
        await self._requests.wait_empty()

    async def close(self) -> None:
        """End the worker and free the model. Streams that still run fail."""
        self.state = EngineState.CLOSED
        self._closing = True
        await self._give_up_load()
        if self._unload_task is not None:
            await asyncio.wait([self._unload_task])
        if self._worker is not None:
            await self._worker.stop()
            log.info("engine.closed", extra={"engine_id": self.engine_id})

    def _cut_short(self) -> EngineDied:
        what = "shut down" if self.state is EngineState.CLOSED else "unloaded"
        return EngineDied(f"Engine '{self.engine_id}' was {what} before it had finished answering")

    def _load_given_up(self) -> KolosalError:
        if self.state is EngineState.CLOSED:
            return self._removed()
        return LoadFailed(f"Loading engine '{self.engine_id}' was given up: it was unloaded meanwhile")

    def _removed(self) -> NotFound:
        return NotFound(f"Engine '{self.engine_id}' was removed", param="engine_id")


def _nothing() -> None:
    """Nobody asked to be told of changes."""


def _outcome(result: asyncio.Future[CallResult]) -> Outcome:
    if not result.done() or result.cancelled():
        return Outcome.CANCELLED
    return Outcome.COMPLETED if result.exception() is None else Outcome.FAILED
