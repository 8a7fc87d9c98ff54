"""Engine: one model and the worker that serves it.

Owns the worker's life (created → loading → ready → …) and what follows from its death: another worker, which goes on with
what was in flight. Used on the event loop only. Knows nothing of other engines: names are the registry's, memory is the load
scheduler's.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kolosal.engines.gguf_sampling import sampling_of_file
from kolosal.engines.in_flight import MAX_CRASHES, InFlightRequests
from kolosal.engines.ipc.calls import Call, CallResult
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import EngineInfo, FromWorker, SavedCounts, StepOutputs
from kolosal.engines.ipc.workers import OnThisMachine, Worker, WorkerEvents, WorkerLauncher
from kolosal.engines.memory.fit import LoadPlan
from kolosal.engines.memory.load_scheduler import LoadScheduler
from kolosal.engines.memory.policy import DEFAULT_RULES, Rules, idle_limit
from kolosal.engines.memory.sizing import NoSizes
from kolosal.engines.parameters import EngineConfig, FittedConfig, Placement, replicas_of
from kolosal.engines.restart import CircuitBreaker
from kolosal.engines.state import EngineState, ObservedState
from kolosal.engines.stream import RequestStream
from kolosal.errors import EngineDied, InsufficientMemory, KolosalError, LoadFailed, NotFound, QueueFull
from kolosal.observe.logtail import LogTail
from kolosal.observe.observer import Observer
from kolosal.schema import GenerateRequest

log = logging.getLogger(__name__)

_MAX_REFITS = 4
"""Loads that may fail for want of memory before one that is the last."""


class Engine(ObservedState):
    """One model, loaded on demand.

    `ensure_ready` may be called by many at once and loads once; `generate` is synchronous, so that nothing can happen
    between the check and the submission; `unload` and `close` are idempotent.
    """

    def __init__(
        self,
        config: EngineConfig,
        command: WorkerCommand,
        *,
        rules: Rules = DEFAULT_RULES,
        asked: EngineConfig | None = None,
        load_scheduler: LoadScheduler | None = None,
        launcher: WorkerLauncher | None = None,
        observer: Observer | None = None,
    ) -> None:
        """`launcher` starts workers, on this machine without one; `asked` is what `config` was before anything else that is said of the model; `load_scheduler` is shared by all engines of a machine; without one this engine may load whenever it likes."""
        observer = observer or Observer()
        super().__init__(config.engine_id, observer)
        self.config = config
        self.asked = asked or config
        """What whoever added it wants."""
        self.groups: frozenset[str] = frozenset()
        """Exclusive groups that it is of."""
        self.root: str | None = None
        """The engine whose file it has, where it is there for the settings of a model only."""
        self.rules = rules
        """How long it stays in memory."""
        self.kept = False
        """Whether it is there again after a restart of the daemon."""
        self.from_library = False
        """Whether it is there because a request named a model, and nobody added it."""
        self.logs = LogTail()
        """What its workers wrote to stderr."""
        self.info: EngineInfo | None = None
        """What the worker got; None until it was loaded once."""
        self.file_sampling: Mapping[str, Any] = {}
        """How the model's file says that tokens are best chosen; nothing until it was loaded once."""
        self.plan: LoadPlan | None = None
        """How it was loaded, and why so; None until it was loaded once."""
        self.kv_cells: int | None = None
        """Cells of the KV cache in use, finished conversations included; None until the worker said."""
        self.saved = SavedCounts()
        """Of conversations without cells, and what all its workers have restored of them."""
        self.created_at = time.time()
        """Unix time at which the engine was added."""
        self.last_used_at: float | None = None
        """Unix time of the last request."""
        self._command = command
        self.load_scheduler = load_scheduler or LoadScheduler(command.settings, NoSizes())
        """Who has the memory that it is loaded into."""
        self._launcher = launcher or OnThisMachine()
        self._events = WorkerEvents(
            self._on_progress, self._on_frame, self._on_exit, self.logs.feed, self._on_moved
        )
        self.breaker = CircuitBreaker(command.settings, command.restart_delays_s)
        """Whether a worker may be started, on the clock of `time.monotonic`."""
        self._breaker_was_reset = asyncio.Event()
        # Of workers in a cluster a daemon before this one may have had requests: none of ours has an id of theirs.
        first_id = 1 if config.placement is Placement.LOCAL else time.time_ns() // 1000
        self._requests = InFlightRequests(config.engine_id, observer, self._note_use, first_id)
        self._worker: Worker | None = None
        self._saved_before = SavedCounts()  # by the workers before this one
        self._most_cells = 0  # of the KV cache in use at once since the worker was started, as far as it said
        self._keep_alive_s: float | None = None
        self._load_task: asyncio.Task[None] | None = None
        self._unload_task: asyncio.Task[None] | None = None
        self._n_waiting = 0  # callers of `ensure_ready`, who are about to use the engine
        self._closing = False

    @property
    def in_flight(self) -> int:
        """Generations and calls that have not ended."""
        return len(self._requests)

    @property
    def busy(self) -> bool:
        """Whether anybody uses it, or is about to: then it stays in memory."""
        return self.in_flight > 0 or self._n_waiting > 0

    @property
    def max_queued(self) -> int:
        """Requests that may wait beyond those that run."""
        own = self.rules.max_queued
        return self._command.settings.max_queued if own is None else own

    @property
    def n_ctx(self) -> int:
        """Tokens that one request may use: of an automatic context the least it can be, until it is loaded."""
        if self.info is not None:
            return self.info.n_ctx
        return self.config.parameters.least_n_ctx

    @property
    def n_parallel(self) -> int:
        """Requests that are answered at the same time; 0 until it was loaded once."""
        copies = 1 if self._worker is None else self._worker.copies
        return 0 if self.info is None else self.info.n_parallel * copies

    @property
    def worker_pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    @property
    def released_bytes(self) -> int:
        """Host memory that its worker may still fill without asking, though the system counts it as free.

        At least: a cell that was used once is counted as filled.
        """
        if self._worker is None or self.info is None:
            return 0
        share = max(0.0, 1 - self._most_cells / max(1, self.info.kv_pool_tokens))
        may_save = 0 if self.plan is None else self.plan.parameters.cache_host_bytes
        return int(self.info.unused_bytes * share) + max(0, may_save - self.saved.host_bytes)

    @property
    def repacked_bytes(self) -> int:
        """Of the weights that are mapped from the file: what the worker has a copy of in memory of its own."""
        return 0 if self._worker is None or self.info is None else self.info.repacked_bytes

    # --- loading ---

    async def ensure_ready(self) -> None:
        """Load the model unless it is loaded. A caller that leaves never cancels a load that others wait for.

        Raises:
            LoadFailed: the model cannot be loaded; the next call tries again.
            InsufficientMemory: there is no memory for it.
            QueueFull: too many engines wait to be loaded.
            EngineDied: its worker died too often lately; the error says when to come back.
            NotFound: the engine was removed.
        """
        self._n_waiting += 1
        try:
            while self.state is not EngineState.READY:
                if self._unload_task is not None:
                    await asyncio.wait([self._unload_task])
                else:
                    await self._join_load()
        finally:
            self._n_waiting -= 1
            self._note_use()

    async def _join_load(self) -> None:
        if self.state is EngineState.CLOSED:
            raise self._removed()
        load = self._load_task
        if load is None or load.done():
            load = self._begin_load()
        try:
            await asyncio.shield(load)
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if load.cancelled() and me is not None and not me.cancelling():
                raise self._load_given_up() from None  # the load was, not this caller
            raise

    def _begin_load(self) -> asyncio.Task[None]:
        self.load_progress = 0.0
        if self.state is not EngineState.CLOSED:  # one that drains starts a worker for what is in flight
            self.state = EngineState.LOADING
        # In a context of its own: what the worker does later is not the work of the request that loads.
        self._load_task = asyncio.create_task(
            self._load(), name=f"load {self.engine_id}", context=contextvars.Context()
        )
        self._load_task.add_done_callback(self._load_ended)
        return self._load_task

    def _load_ended(self, task: asyncio.Task[None]) -> None:
        if self._load_task is task:
            self._load_task = None
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it, and `last_error` keeps it

    async def _load(self) -> None:
        """Start a worker; while requests are in flight, again and again until one is ready or the breaker opens."""
        try:
            while self._worker is None:
                await self._wait_for_start()
                try:
                    await self._start_worker()
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

    async def _wait_for_start(self) -> None:
        """Wait until a worker may be started: the longer, the more often one died lately."""
        now = time.monotonic()
        retry_after_s = self.breaker.retry_after_s(now)
        if retry_after_s is not None:
            raise EngineDied(
                f"Engine '{self.engine_id}' keeps stopping and is not started again for {retry_after_s} s."
                f" {self.last_error}",
                retry_after_s=retry_after_s,
            )
        wait_s = self.breaker.wait_s(now)
        if wait_s > 0:
            log.info("engine.waiting", extra={"engine_id": self.engine_id, "wait_s": round(wait_s, 3)})
            self._breaker_was_reset.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._breaker_was_reset.wait(), wait_s)

    def reset_breaker(self) -> None:
        """Forget how often workers died, and end the pause before the next start."""
        self.breaker.reset()
        self._breaker_was_reset.set()

    async def _start_worker(self) -> None:
        """Have memory reserved, start a worker there, and give it what is in flight."""
        self.load_progress = 0.0
        started_at = time.monotonic()
        async with self.load_scheduler.reserve(self, self.config) as reserved:
            plan, worker, info = await self._launch_fitting(reserved)
            self.load_scheduler.loaded(self, info)
        self._worker, self.info, self.plan, self.last_error = worker, info, plan, None
        self.file_sampling = sampling_of_file(info.sampling.get)
        if self.state is EngineState.LOADING:
            self.state = EngineState.READY
        self.load_progress = 1.0
        self.breaker.started(time.monotonic())
        fields = {"engine_id": self.engine_id, "pid": worker.pid, "resumed": self.in_flight}
        log.info("engine.loaded", extra=fields | {"load_s": round(time.monotonic() - started_at, 3)})
        for warning in info.warnings:
            log.warning("engine.warning", extra={"engine_id": self.engine_id, "reason": warning})
        self._requests.attach(worker.send, info.n_ctx)

    async def _launch_fitting(self, plan: LoadPlan) -> tuple[LoadPlan, Worker, EngineInfo]:
        """Launch a worker, and again with less where it finds less memory than was estimated."""
        for _ in range(_MAX_REFITS):
            try:
                return plan, *await self._launch(plan)
            except LoadFailed as exc:
                again = await self.load_scheduler.retry(self, exc)
                if again is None:
                    raise
                plan = again
        return plan, *await self._launch(plan)

    async def _launch(self, plan: LoadPlan) -> tuple[Worker, EngineInfo]:
        given = self.config
        config = FittedConfig(
            given.engine_id,
            given.model_path,
            plan.parameters,
            given.backend,
            given.backend_options,
            placement=given.placement,
            num_gpus=given.num_gpus,
            strategy=given.strategy,
        )
        return await self._launcher.launch(
            self._command, config, lambda: replicas_of(self.rules.replicas), self._events
        )

    def _note_failed_load(self, error: LoadFailed | InsufficientMemory) -> None:
        worker_failed = isinstance(error, LoadFailed) and error.worker_started
        if worker_failed or self.in_flight:
            self.breaker.died(time.monotonic())
        # One that was given up because nobody waited any more is no fault.
        if worker_failed or self.busy:
            self.last_error = error.message
        log.warning("engine.load_failed", extra={"engine_id": self.engine_id, "reason": error.message})

    # --- what the worker says ---

    def _on_progress(self, fraction: float) -> None:
        self.load_progress = fraction

    def _on_frame(self, frame: FromWorker) -> None:
        self._requests.take(frame)
        if isinstance(frame, StepOutputs) and frame.kv_cells is not None:
            self.kv_cells = frame.kv_cells
            self._most_cells = max(self._most_cells, frame.kv_cells)
        if isinstance(frame, StepOutputs) and frame.saved is not None:
            self.saved = self._saved_before + frame.saved

    def _on_exit(self, reason: str) -> None:
        self._worker = None
        self.kv_cells = None
        self._most_cells = 0
        self.saved = replace(self.saved, host_bytes=0)
        self._saved_before = replace(self.saved, disk_bytes=0)  # the next one counts its files
        self._requests.detach()
        self.load_scheduler.release(self)
        if self._closing or self.state is EngineState.UNLOADING:
            self._requests.fail_all(self._cut_short())
            if not self._closing:
                self.state = EngineState.UNLOADED
        else:
            self._on_death(reason)

    def _on_death(self, reason: str) -> None:
        """Fail what has gone down with a worker before; for the rest, start another."""
        self.breaker.died(time.monotonic())
        self.last_error = reason
        if self.state is EngineState.READY:
            self.state = EngineState.UNLOADED
        fields = {"engine_id": self.engine_id, "reason": reason, "streams": self.in_flight}
        log.error("engine.died", extra=fields)
        self._fail_crashed(reason)
        if self.in_flight:
            self._begin_load()

    def _on_moved(self, request_ids: Sequence[int], death: str | None) -> None:
        """One of several workers has these requests no more: others go on with them."""
        fields = {"engine_id": self.engine_id, "reason": death, "streams": len(request_ids)}
        log.log(logging.INFO if death is None else logging.WARNING, "engine.moved", extra=fields)
        if death is not None:
            self.last_error = death
            self._fail_crashed(death, request_ids)
        self._requests.send_again(request_ids)

    def _fail_crashed(self, reason: str, request_ids: Sequence[int] | None = None) -> None:
        stopped = f"Engine '{self.engine_id}' stopped while it"
        self._requests.fail_crashed(
            EngineDied(f"{stopped} was answering, {MAX_CRASHES} times in a row. {reason}"),
            EngineDied(f"{stopped} compiled the grammar of this request. {reason}"),
            request_ids,
        )

    # --- requests ---

    def generate(self, request: GenerateRequest) -> RequestStream:
        """Submit a request to the loaded model.

        Raises:
            EngineDied: there is no worker (any more).
            QueueFull: as many requests wait as may.
            PayloadTooLarge: it is longer than a frame may be.
        """
        self._admit()
        return self._requests.generate(request)

    async def call(self, call: Call) -> CallResult:
        """Have the loaded model do something that is no generation. A caller that leaves aborts the call.

        Raises:
            EngineDied: there is no worker (any more).
            QueueFull: as many requests wait as may.
            PayloadTooLarge: it is longer than a frame may be.
            KolosalError: the call was refused.
        """
        self._admit()
        return await self._requests.call(call)

    def _admit(self) -> None:
        """Count one more use, where the engine is loaded and its queue has a place."""
        if self.state is not EngineState.READY or self._worker is None or self.info is None:
            raise EngineDied(f"Engine '{self.engine_id}' is not loaded")
        limit = self.n_parallel + self.max_queued
        if self.in_flight >= limit:
            raise QueueFull(
                f"Engine '{self.engine_id}' has {limit} requests running and waiting, as many as it may",
                retry_after_s=self.observer.place_free_in_s(self.engine_id, self.n_parallel),
            )
        self._keep_alive_s = None
        self.last_used_at = time.time()

    # --- staying in memory, and ending ---

    def keep_alive(self, seconds: float | None, *, unless_said: bool = False) -> None:
        """Say how long the engine stays in memory once it is idle; None: as its rules say.

        Called after `generate`: the last request decides. Less than 0 is for ever, 0 unloads after the answer. `unless_said`: only
        where the last request did not say so itself.
        """
        if unless_said and self._keep_alive_s is not None:
            return
        self._keep_alive_s = seconds
        self._note_use()

    @property
    def idle_limit_s(self) -> float | None:
        """Seconds it stays in memory once it is idle; None: until its memory is needed."""
        return idle_limit(self.rules, self._keep_alive_s, self._command.settings.idle_ttl_s)

    def _note_use(self) -> None:
        self.load_scheduler.note_use(self)

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
        return self._unload_task

    async def _unload(self) -> None:
        try:
            await self._give_up_load()
            if self._worker is not None:
                await self._worker.stop()
            if self.state is EngineState.UNLOADING:
                self.state = EngineState.UNLOADED
            self.load_progress = 0.0
            log.info("engine.unloaded", extra={"engine_id": self.engine_id})
        finally:
            self._unload_task = None
            self._note_use()

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

    async def _give_up_load(self) -> None:
        if self._load_task is not None:
            if not self._load_task.cancelling():  # a second cancel would cut short the end of its worker
                self._load_task.cancel()
            await asyncio.wait([self._load_task])

    def _cut_short(self) -> EngineDied:
        what = "shut down" if self.state is EngineState.CLOSED else "unloaded"
        return EngineDied(f"Engine '{self.engine_id}' was {what} before it had finished answering")

    def _load_given_up(self) -> KolosalError:
        if self.state is EngineState.CLOSED:
            return self._removed()
        return LoadFailed(f"Loading engine '{self.engine_id}' was given up: it was unloaded meanwhile")

    def _removed(self) -> NotFound:
        return NotFound(f"Engine '{self.engine_id}' was removed", param="engine_id")
