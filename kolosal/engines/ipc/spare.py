"""SpareWorker: a worker that was started before anybody needs it, and waits for its hello with all that it imports.

Starting Python and importing what a worker needs takes a third of the time in which a small model is loaded. The spare makes
swapping models, and going on after a crash, shorter by that. It is there only while workers are, and a moment longer: an idle
daemon has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine, Mapping
from functools import partial

from kolosal.engines.ipc.messages import MAX_FRAME_BYTES
from kolosal.engines.ipc.system import spawn_options

log = logging.getLogger(__name__)

_START_AFTER_S = 1.0
"""The first answer of a model that was just loaded comes before the next spare."""

_LINGER_S = 60.0
"""A model that takes the place of another one is loaded after that has gone."""


async def spawn(argv: tuple[str, ...], environment: Mapping[str, str]) -> Process:
    """A worker's process, which waits for its hello. A cancelled start leaves no process.

    Raises:
        OSError: there is none.
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=MAX_FRAME_BYTES,
        env=environment,
        **spawn_options(),
    )


class SpareWorker:
    """At most one process without a model. Used on the event loop only."""

    def __init__(self, *, start_after_s: float = _START_AFTER_S, linger_s: float = _LINGER_S) -> None:
        self._start_after_s, self._linger_s = start_after_s, linger_s
        self._process: Process | None = None
        self._made_of: tuple[tuple[str, ...], Mapping[str, str]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changing: asyncio.Task[None] | None = None  # a process starts or ends

    @property
    def pid(self) -> int | None:
        """Of the process that waits; None while there is none."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def keep(self, argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Have one of this program ready soon."""
        self._plan(self._start_after_s, partial(self._start, argv, environment))

    def release(self) -> None:
        """No worker runs any more: the spare ends too, where there is none again soon."""
        self._plan(self._linger_s, self._end)

    def take(self, argv: tuple[str, ...], environment: Mapping[str, str]) -> Process | None:
        """The process that waits, now the caller's; None where there is none of this program."""
        self._cancel_timer()  # whoever loads needs the processors
        if self.pid is None or self._made_of != (argv, environment):
            return None
        process, self._process = self._process, None
        return process

    async def close(self) -> None:
        """End the process. Idempotent."""
        self._cancel_timer()
        if self._changing is not None:
            await asyncio.wait([self._changing])
        await self._end()

    def _plan(self, after_s: float, change: Callable[[], Coroutine[None, None, None]]) -> None:
        self._cancel_timer()
        # In a context of its own: it is not the work of the request that loads.
        self._timer = asyncio.get_running_loop().call_later(
            after_s, self._begin, change, context=contextvars.Context()
        )

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, change: Callable[[], Coroutine[None, None, None]]) -> None:
        if self._changing is None or self._changing.done():
            self._changing = asyncio.create_task(change(), name="spare worker")
        else:  # one after the other
            self._changing.add_done_callback(lambda _: self._begin(change))

    async def _start(self, argv: tuple[str, ...], environment: Mapping[str, str]) -> None:
        if self.pid is not None and self._made_of == (argv, environment):
            return
        await self._end()
        try:
            self._process = await spawn(argv, environment)
        except OSError as exc:
            log.warning("worker.no_spare", extra={"reason": exc.strerror})
        self._made_of = argv, environment

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                process.kill()  # it has nothing to save
            await process.wait()
