"""LiveRuns: the runs that this daemon carries out now, each in a task of its own that no client ends by leaving.

A run is kept as `queued` when it begins, and as it ended when it has ended, in one transaction with all that it made. In between its states
are known here alone, so one that the daemon's end cut off is kept as active, while nobody carries it out: it has failed (`as_it_is`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from starlette.requests import Request

from kolosal.assistants.objects import LastError, RunObject
from kolosal.assistants.runs import ACTIVE, WAITING, as_it_is
from kolosal.assistants.searches import kind_of_calls
from kolosal.assistants.writer import RunEvent, RunWriter
from kolosal.errors import (
    ClientError,
    EngineDied,
    InternalError,
    KolosalError,
    NotFound,
    Overloaded,
    StorageFull,
    StoreUnavailable,
)
from kolosal.http.disconnect import end_tasks, unless_revoked
from kolosal.observe.context import note_error
from kolosal.routes.assistants.feed import RunFeed
from kolosal.routes.assistants.prompt import PromptLimitReached
from kolosal.routes.assistants.turns import RunTurns
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.services import Caller
from kolosal.store.collections import MESSAGES, RUNS, STEPS

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

log = logging.getLogger(__name__)

SAVE_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 15.0)
"""Before the end of a run that could not be kept is kept again; the last one for all further tries. Its thread waits for that."""

CLOSE_WAIT_S = 5.0
"""How long the daemon's end, and whoever wants to change a run that has ended, wait for it to be kept."""


class LiveRun:
    """A run that is being carried out. `begin` once it is kept, or `give_up` where it could not be."""

    def __init__(
        self, request: Request, caller: Caller, *, streams: bool, with_content: bool = False
    ) -> None:
        """Takes a place among the daemon's requests. `with_content`: its stream has the texts that searches found.

        Raises:
            Overloaded: there is none.
        """
        self._scope = request.scope
        self._caller = caller
        self._generation = Generation(caller)
        self._writer: RunWriter | None = None
        self._last: list[RunEvent] = []
        self._work: asyncio.Task[None] | None = None
        self.done = asyncio.Event()
        """Set once it is kept as it ended, or given up."""
        self.feed = RunFeed(with_content=with_content) if streams else None
        """Where its events go."""

    @property
    def writer(self) -> RunWriter:
        """What makes its objects; there once the run is."""
        assert self._writer is not None  # noqa: S101 - `hold` comes first
        return self._writer

    @property
    def run(self) -> RunObject:
        """The run as it is now."""
        return self.writer.run

    def hold(self, run: RunObject) -> None:
        """Carry out this run, which is queued."""
        self._writer = RunWriter(run, time.time)

    def relabel(self, metadata: dict[str, str]) -> RunObject:
        """Give it other labels."""
        self.writer.run = {**self.run, "metadata": metadata}
        return self.run

    def cancel(self) -> RunObject:
        """Stop it, and what it is then. Idempotent.

        Raises:
            InvalidRequest: it has ended.
        """
        self._emit(self.writer.cancel())
        if self._work is not None:
            self._work.cancel()
        return self.run

    def give_up(self) -> None:
        """It was not kept, or has ended. Idempotent."""
        self._generation.abort()
        self.done.set()

    async def carry_out(self) -> None:
        """Generate and keep what comes of it, to the end."""
        self._work = asyncio.create_task(unless_revoked(self._scope, self._generate()))
        try:
            left_s = (self.run["expires_at"] or 0) - time.time()
            await asyncio.wait((self._work,), timeout=max(0.0, left_s))
            self._finish(self._work)
            await end_tasks(self._work)
            self._generation.abort()
            await self._keep()
            if self.feed is not None:
                self.feed.close()
        finally:
            self._generation.abort()
            await end_tasks(self._work)
            if self.feed is not None:
                self.feed.close(InternalError())  # where it was not closed

    # --- generating ---

    async def _generate(self) -> None:
        await RunTurns(self._caller, self._generation, self.writer, self._emit).carry_out()

    def _finish(self, work: asyncio.Task[None]) -> None:
        """End the turn, where the model has not ended it."""
        if self.writer.over:
            return
        if not work.done():
            self._emit(self.writer.end("expired"))
            return
        error = None if work.cancelled() else work.exception()
        if self.run["status"] == "cancelling":
            self._emit(self.writer.end("cancelled"))
        elif isinstance(error, PromptLimitReached):
            self._emit(self.writer.end("incomplete", reason="max_prompt_tokens"))
        else:
            self._emit(self.writer.end("failed", error=self._last_error(error)))

    def _last_error(self, error: BaseException | None) -> LastError:
        if error is None:
            error = EngineDied("The engine was removed while it answered")
        if not isinstance(error, KolosalError):
            log.error("run.failed", exc_info=error, extra={"run_id": self.run["id"]})
            error = InternalError()
        note_error(error)
        return last_error(error)

    def _emit(self, events: Sequence[RunEvent]) -> None:
        """Send events; those of the end once it is kept."""
        if self.writer.over:
            self._last += events
        elif self.feed is not None:
            self.feed.put(events)

    # --- keeping ---

    async def _keep(self) -> None:
        """Keep what was made, trying until it can be, and send the last events then."""
        for attempt in range(10**9):
            try:
                await self._keep_once()
            except (StoreUnavailable, StorageFull) as exc:
                if self.feed is not None:
                    self.feed.close(exc)
                await asyncio.sleep(SAVE_DELAYS_S[min(attempt, len(SAVE_DELAYS_S) - 1)])
            else:
                break
        if self.feed is not None:
            self.feed.put(self._last)

    async def _keep_once(self) -> None:
        run, writer = self.run, self.writer
        part = {"thread_id": run["thread_id"], "run_id": run["id"]}
        async with self._caller.services.store.writing(self._caller.key_id) as session:
            session.is_bounded = False  # what was generated is kept: what is new is refused
            if await session.find(RUNS, run["id"], lock=True) is None:
                return  # its thread was deleted
            for made in writer.made:
                if made["object"] == "thread.message":
                    await session.insert(MESSAGES, made, **part)
                else:
                    await session.insert(STEPS, made, **part, type=kind_of_calls(made))
            await session.replace(RUNS, run, status=run["status"])


class LiveRuns:
    """All of them, by their ids. Used on the event loop only."""

    def __init__(self) -> None:
        self._runs: dict[str, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, live: LiveRun, run: RunObject) -> None:
        """Hold a run, before it is kept: from then on it may be looked for."""
        live.hold(run)
        self._runs[run["id"]] = live

    def drop(self, live: LiveRun) -> None:
        """A run that was not kept, or has ended. Idempotent."""
        self._runs = {run_id: each for run_id, each in self._runs.items() if each is not live}
        live.give_up()

    def begin(self, live: LiveRun) -> None:
        """Carry out a run that is kept."""
        task = asyncio.create_task(self._carry_out(live), name="run")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def find(self, run_id: str) -> LiveRun | None:
        """A run that is being carried out."""
        return self._runs.get(run_id)

    def current(self, run: RunObject) -> RunObject:
        """A run that was kept, as it is now."""
        live = self._runs.get(run["id"])
        if live is not None and live.run["status"] in ACTIVE:
            return live.run
        return as_it_is(run, int(time.time()), is_live=live is not None)

    async def kept(self, run_id: str) -> None:
        """Wait until a run that has ended is kept as it ended: only then can it be changed.

        Raises:
            StoreUnavailable: it could not be kept yet.
        """
        live = self._runs.get(run_id)
        if live is None or not live.writer.over:
            return
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await live.done.wait()
        except TimeoutError:
            raise StoreUnavailable("The run has ended, but could not be kept yet") from None

    def cancel_all(self, thread_id: str) -> None:
        """Stop what is carried out in a thread."""
        for live in tuple(self._runs.values()):
            if live.run["thread_id"] == thread_id and live.run["status"] in ACTIVE:
                live.cancel()

    async def close(self) -> None:
        """Wait for runs to be kept, but not for long: those that are not have failed when the daemon is there again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_WAIT_S)
        await end_tasks(*self._tasks)

    async def _carry_out(self, live: LiveRun) -> None:
        try:
            await live.carry_out()
        except Exception:
            log.exception("run.lost", extra={"run_id": live.run["id"]})
        finally:
            self.drop(live)


async def active_run(session: StoreSession, runs: LiveRuns, thread_id: str) -> RunObject | None:
    """The run that is active in a thread, if one is."""
    for row in await session.newest(RUNS, 1, thread_id=thread_id, status=WAITING):
        run = runs.current(cast("RunObject", row.data))
        if run["status"] in ACTIVE:
            return run
    return None


def last_error(error: KolosalError) -> LastError:
    """An error as runs tell it."""
    if isinstance(error, Overloaded):
        return {"code": "rate_limit_exceeded", "message": error.message}
    if isinstance(error, ClientError) and not isinstance(error, NotFound):
        return {"code": "invalid_prompt", "message": error.message}
    return {"code": "server_error", "message": error.message}
