"""ReplicaSet: several workers of one engine, which are one worker to it.

Owns who has which request, and how many workers there are: it starts one in the place of one that died, more where requests wait,
and ends one where there are too many. What a worker had that is gone is given back to the engine, which sends it again, with the
tokens that there are, and it goes to another one. So does what waits at a full worker while another has room. With the last worker the
set has ended, as a process does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from kolosal.cluster.prompt_key import PromptKey, prompt_key
from kolosal.cluster.routing import Route, Router
from kolosal.cluster.scaling import Scaler, ScalingRules
from kolosal.cluster.view import EngineReplicas, ReplicaState, ReplicaView
from kolosal.cluster.worker_host import Placed
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import (
    Abort,
    EngineInfo,
    Failed,
    FromWorker,
    SavedCounts,
    StepOutputs,
    Submit,
    ToWorker,
    UnaryCall,
    UnaryResult,
)
from kolosal.engines.ipc.process import WorkerProcess
from kolosal.engines.ipc.transport import Transport
from kolosal.engines.ipc.workers import WorkerEvents
from kolosal.engines.parameters import FittedConfig, Replicas
from kolosal.errors import KolosalError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""How often the number of workers is looked at."""

DRAIN_S = 60.0
"""How long a worker that is to end may finish what it runs; then others go on with it."""

_ENDED = "ended"

_CALL = PromptKey(n_tokens=256)
"""What a call that is no generation counts."""


class ReplicaTransport(Transport, Protocol):
    """Starts one worker."""

    @property
    def adopted(self) -> bool:
        """Whether it was there before this daemon was, and may have requests of one before."""
        ...

    @property
    def place(self) -> Placed | None:
        """Where it is, once that is known."""
        ...


@dataclass(eq=False, slots=True)
class _Member:
    name: str
    transport: ReplicaTransport
    state: ReplicaState = ReplicaState.STARTING
    worker: WorkerProcess | None = None
    n_parallel: int = 1
    kv_cells: int = 0
    saved: SavedCounts = field(default_factory=SavedCounts)
    requests: set[int] = field(default_factory=set)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last of its requests has ended, while it drains."""


@dataclass(eq=False, slots=True)
class _Request:
    replica: _Member
    route: Route
    since: float
    answered: bool = False
    """Whether anything came of it yet."""


class ReplicaSet:
    """The workers of one engine. Used on the event loop only."""

    def __init__(
        self,
        command: WorkerCommand,
        config: FittedConfig,
        replicas: Callable[[], Replicas],
        events: WorkerEvents,
        transport: Callable[[Collection[str]], ReplicaTransport],
        tell: Callable[[ReplicaView, str, str | None], None] = lambda _replica, _state, _reason: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`transport` makes one for a worker that is on none of the given machines; `tell` gets each that is in another state, which may
        be `ended`, and why, where that was not asked for."""
        self.engine_id = config.engine_id
        self._command = command
        self._config = config
        self._wanted = replicas
        self._events = events
        self._transport = transport
        self._tell = tell
        self._clock = clock
        self._router = Router()
        self._scaler = Scaler(_rules(replicas()))
        self._replicas: dict[str, _Member] = {}
        self._requests: dict[int, _Request] = {}
        self._left: dict[int, str] = {}
        """The full worker that a request waits at no more, while it is sent again."""
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0  # starts that failed one after the other
        self._start_at = 0.0
        self._saved_before = SavedCounts()  # by those that have ended
        self._ended = False
        self._stopping = False

    # --- as a worker ---

    @property
    def pid(self) -> None:
        """None of the processes is of this machine, as far as anybody should care."""

    @property
    def copies(self) -> int:
        return max(1, len(self._of(ReplicaState.READY)))

    async def launch(self) -> EngineInfo:
        """Have the first worker ready; the others follow.

        Raises:
            LoadFailed: it cannot be loaded.
            InsufficientMemory: there is no room for it.
        """
        info = await self._start(self._new(()), self._events.progress)
        self._begin(self._keep_up())
        return info

    def send(self, frame: ToWorker) -> None:
        match frame:
            case Submit(request_id=request_id, request=request):
                self._submit(request_id, frame, prompt_key(request))
            case UnaryCall(request_id=request_id):
                self._submit(request_id, frame, _CALL)
            case Abort(request_id=request_id):
                ended = self._end(request_id)
                if ended is not None and ended.replica.worker is not None:
                    ended.replica.worker.send(frame)
            case _:
                raise TypeError(f"no {frame.tag} frame goes to several workers")

    async def stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks])
        workers = [each.worker for each in self._replicas.values() if each.worker is not None]
        await asyncio.gather(*(worker.stop() for worker in workers))

    # --- requests ---

    def _submit(self, request_id: int, frame: Submit | UnaryCall, key: PromptKey) -> None:
        left = self._left.pop(request_id, None)
        route = self._router.route(key, () if left is None else (left,)) or self._route_anywhere(key)
        replica = self._replicas[route.replica]
        assert replica.worker is not None  # noqa: S101 - the router knows those that are ready
        try:
            replica.worker.send(frame)
        except KolosalError:
            self._router.end(route)
            raise
        self._requests[request_id] = _Request(replica, route, self._clock())
        replica.requests.add(request_id)

    def _route_anywhere(self, key: PromptKey) -> Route:
        """Where all that are left drain: one of them answers all the same."""
        last = next(each for each in self._replicas.values() if each.worker is not None)
        self._open(last)
        route = self._router.route(key)
        assert route is not None  # noqa: S101 - there is one now
        return route

    def _end(self, request_id: int) -> _Request | None:
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._router.end(request.route)
            replica = request.replica
            replica.requests.discard(request_id)
            if not replica.requests:
                replica.idle.set()
        return request

    def _on_frame(self, replica: _Member, frame: FromWorker) -> None:
        match frame:
            case StepOutputs(outputs=outputs):
                outputs = tuple(each for each in outputs if self._is_ours(replica, each.request_id))
                for each in outputs:
                    request = self._requests.get(each.request_id)
                    if request is not None and not request.answered:
                        request.answered = True
                        self._router.computed(request.route)
                replica.kv_cells = replica.kv_cells if frame.kv_cells is None else frame.kv_cells
                replica.saved = frame.saved or replica.saved
                self._events.frame(
                    replace(frame, outputs=outputs, kv_cells=self._kv_cells, saved=self._saved)
                )
                for each in outputs:
                    if each.delta.finish_reason is not None:
                        self._end(each.request_id)
            case UnaryResult(request_id=request_id) | Failed(request_id=request_id):
                if self._is_ours(replica, request_id):
                    self._events.frame(frame)
                    self._end(request_id)
            case _:
                self._events.frame(frame)

    @property
    def _kv_cells(self) -> int:
        return sum(each.kv_cells for each in self._replicas.values())

    @property
    def _saved(self) -> SavedCounts:
        return sum((each.saved for each in self._replicas.values()), self._saved_before)

    def _is_ours(self, replica: _Member, request_id: int) -> bool:
        """Whether a request is this worker's: it may be another's by now, or of a head before this one, which the worker forgets."""
        request = self._requests.get(request_id)
        if request is not None and request.replica is not replica:
            return False
        if not replica.transport.adopted or request_id >= _FIRST_ID:
            return True
        if replica.worker is not None:
            replica.worker.send(Abort(request_id))
        return False

    # --- workers ---

    def _new(self, avoid: Collection[str]) -> _Member:
        replica = _Member(f"r{next(self._numbers)}", self._transport(avoid))
        self._replicas[replica.name] = replica
        self._tell(self._view(replica), ReplicaState.STARTING, None)
        return replica

    async def _start(self, replica: _Member, progress: Callable[[float], None]) -> EngineInfo:
        try:
            worker, info = await WorkerProcess.launch(
                self._command,
                self._config,
                on_progress=progress,
                on_frame=partial(self._on_frame, replica),
                on_exit=partial(self._on_exit, replica),
                on_stderr=self._events.stderr,
                transport=replica.transport,
            )
        except BaseException as exc:
            self._replicas.pop(replica.name, None)
            self._tell(self._view(replica), _ENDED, exc.message if isinstance(exc, KolosalError) else None)
            raise
        replica.worker, replica.n_parallel = worker, info.n_parallel
        self._kv_tokens = info.kv_pool_tokens
        self._open(replica)
        place = replica.transport.place
        fields = {"engine_id": self.engine_id, "replica": replica.name, "adopted": replica.transport.adopted}
        log.info("replica.ready", extra=fields | {"node": None if place is None else place.node_name})
        return info

    def _open(self, replica: _Member) -> None:
        replica.state = ReplicaState.READY
        self._router.add(replica.name, self._kv_tokens)
        self._tell(self._view(replica), replica.state, None)

    def _on_exit(self, replica: _Member, reason: str) -> None:
        """Give back what it had; where it was the last, the set has ended."""
        died = replica.state is ReplicaState.READY and not self._stopping
        self._replicas.pop(replica.name, None)
        self._router.remove(replica.name)
        replica.idle.set()
        self._saved_before += replace(replica.saved, host_bytes=0, disk_bytes=0)
        self._tell(self._view(replica), _ENDED, reason if died else None)
        lost = sorted(replica.requests)
        for request_id in lost:
            del self._requests[request_id]
        fields = {"engine_id": self.engine_id, "replica": replica.name, "streams": len(lost)}
        log.log(logging.ERROR if died else logging.INFO, "replica.ended", extra=fields | {"reason": reason})
        if any(each.worker is not None for each in self._replicas.values()):
            self._events.moved(lost, reason if died else None)
        elif not self._ended:
            self._ended = True
            for task in self._tasks:
                task.cancel()
            self._events.exit(reason)

    async def _keep_up(self) -> None:
        """Have as many workers as are wanted, until cancelled."""
        while True:
            wanted = self._n_wanted()
            if self._clock() >= self._start_at:
                for _ in range(wanted - len(self._of(ReplicaState.READY, ReplicaState.STARTING))):
                    self._begin(self._add())
            if (spare := self._spare(wanted)) is not None:
                self._begin(self._drain(spare))
            self._move(self._waiting_in_vain())
            await asyncio.sleep(LOOK_EVERY_S)

    def _spare(self, wanted: int) -> _Member | None:
        """The worker with the least to do, where there are too many."""
        ready = self._of(ReplicaState.READY)
        if self._of(ReplicaState.STARTING, ReplicaState.DRAINING) or len(ready) <= wanted:
            return None
        return min(ready, key=lambda each: self._router.tokens_in_flight(each.name))

    def _n_wanted(self) -> int:
        """How many there are to be. Asked once for each look: the scaler says once that there are to be fewer."""
        rules = _rules(self._wanted())
        if rules != self._scaler.rules:
            self._scaler = Scaler(rules)
        now = self._clock()
        ready = self._of(ReplicaState.READY)
        places = max(1, sum(each.n_parallel for each in ready))
        full = [each for each in ready if len(each.requests) > each.n_parallel]
        having = [self._requests[request_id] for each in full for request_id in each.requests]
        oldest = min((request.since for request in having if not request.answered), default=now)
        return self._scaler.wanted(
            now,
            replicas=len(self._of(ReplicaState.READY, ReplicaState.STARTING)),
            queue_s=now - oldest,
            busy=min(1.0, len(self._requests) / places),
            draining=bool(self._of(ReplicaState.DRAINING)),
        )

    def _waiting_in_vain(self) -> list[int]:
        """Requests that wait at a full worker although others have places, as many as those have."""
        ready = self._of(ReplicaState.READY)
        since = self._clock() - self._scaler.rules.up_queue_s
        waiting: list[int] = []
        for each in ready:
            n_over = max(0, len(each.requests) - each.n_parallel)
            begun_last = sorted(each.requests)[-n_over:] if n_over else []
            waiting += [
                request_id
                for request_id in begun_last
                if not (request := self._requests[request_id]).answered and request.since < since
            ]
        return sorted(waiting)[: sum(max(0, each.n_parallel - len(each.requests)) for each in ready)]

    def _move(self, request_ids: list[int]) -> None:
        """Take requests from their workers, and have the engine send them again."""
        for request_id in request_ids:
            request = self._end(request_id)
            if request is not None and request.replica.worker is not None:
                self._left[request_id] = request.replica.name
                request.replica.worker.send(Abort(request_id))
        if request_ids:
            self._events.moved(request_ids, None)
            self._left.clear()

    async def _add(self) -> None:
        try:
            await self._start(self._new(()), lambda _: None)
        except KolosalError as exc:
            self._failures += 1
            delays = self._command.restart_delays_s
            delay_s = max(1.0, delays[min(self._failures, len(delays) - 1)])
            self._start_at = self._clock() + delay_s
            fields = {"engine_id": self.engine_id, "reason": exc.message, "retry_in_s": delay_s}
            log.warning("replica.not_started", extra=fields)
        else:
            self._failures = 0

    # --- draining ---

    def drain_machine(self, node_id: str) -> list[asyncio.Task[None]]:
        """Have no worker on a machine: others are started elsewhere; what ends when those there have ended."""
        there = [
            each
            for each in self._of(ReplicaState.READY)
            if each.transport.place is not None and each.transport.place.node_id == node_id
        ]
        return [self._begin(self._drain(each, replace_it=True)) for each in there]

    async def _drain(self, replica: _Member, *, replace_it: bool = False) -> None:
        """End a worker once it has finished what it runs, and, where it is to be replaced, another is ready."""
        if replace_it and len(self._of(ReplicaState.READY)) == 1:
            with contextlib.suppress(KolosalError):
                await self._start(self._new(()), lambda _: None)
        if replica.worker is None or replica.state is not ReplicaState.READY:
            return
        replica.state = ReplicaState.DRAINING
        self._router.drain(replica.name)
        self._tell(self._view(replica), replica.state, None)
        replica.idle.clear()
        if replica.requests:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(replica.idle.wait(), DRAIN_S)
        if replica.state is ReplicaState.DRAINING:  # else it is needed after all
            await asyncio.shield(replica.worker.stop())

    # --- looking ---

    def view(self) -> EngineReplicas:
        """The workers, for those who look."""
        wanted = self._wanted()
        return EngineReplicas(
            self.engine_id,
            wanted.min,
            wanted.max,
            tuple(self._view(each) for each in self._replicas.values()),
        )

    def _view(self, replica: _Member) -> ReplicaView:
        place = replica.transport.place
        return ReplicaView(
            replica.name,
            replica.state,
            None if place is None else place.node_id,
            None if place is None else place.node_name,
            len(replica.requests),
            self._router.tokens_in_flight(replica.name),
        )

    def _of(self, *states: ReplicaState) -> list[_Member]:
        return [each for each in self._replicas.values() if each.state in states]

    def _begin(self, work: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("replicas.task_failed", extra={"engine_id": self.engine_id}, exc_info=error)


_FIRST_ID = time.time_ns() // 1000
"""Ids of this daemon's requests in a cluster are greater, see `Engine`."""


def _rules(replicas: Replicas) -> ScalingRules:
    return ScalingRules(min=replicas.min, max=replicas.max)
