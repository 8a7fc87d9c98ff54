"""RayProcess: a worker's process on another machine, as its engine sees it: what `asyncio.subprocess.Process` is for one of this one.

Owns the two ways of a `WorkerHost`: one task fetches what the worker said, as fast as that is read, one hands over what is written,
all there is at once. A call that fails means that the machine or the actor is lost: then the stream of frames ends with a `Fatal` that
says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from kolosal.cluster.worker_host import Placed, WorkerSaid
from kolosal.engines.ipc.messages import MAX_FRAME_BYTES, Fatal, encode

_ANSWER_S = 4.0
"""How long an actor may take to end its worker; then it is ended with it."""

_LOST_STATUS = -9


class _PauseReading:
    """What a `StreamReader` takes for its pipe: it says when it holds enough."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.may_read.set()

    def pause_reading(self) -> None:
        self.may_read.clear()

    def resume_reading(self) -> None:
        self.may_read.set()


class _Sink:
    """Frames on their way to the worker."""

    def __init__(self, close: Callable[[], object]) -> None:
        self.pending = bytearray()
        self.changed = asyncio.Event()
        self._close = close
        self._closed = False

    def write(self, data: bytes, /) -> None:
        self.pending += data
        self.changed.set()

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._close()


class RayProcess:
    """One worker in the cluster. Used on the event loop only."""

    def __init__(
        self, actor: Any, head: str, pid: int, place: Placed, release: Callable[[], Awaitable[None]]
    ) -> None:
        """`actor` is the handle of a `WorkerHost`; `release` ends it, whatever state it is in."""
        self.place = place
        """Where it runs."""
        self._actor = actor
        self._head = head
        self._pid = pid
        self._release = release
        self._status: int | None = None
        self._ended = asyncio.Event()
        self._pause = _PauseReading()
        self._stdin = _Sink(lambda: self._begin(self._end("close")))
        self._stdout = asyncio.StreamReader(limit=MAX_FRAME_BYTES)
        self._stdout.set_transport(self._pause)  # type: ignore[arg-type]  # it uses these two methods
        self._stderr = asyncio.StreamReader()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer = self._begin(self._write())
        self._begin(self._fetch())

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def returncode(self) -> int | None:
        return self._status

    @property
    def stdin(self) -> _Sink:
        return self._stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        return self._stdout

    @property
    def stderr(self) -> asyncio.StreamReader:
        return self._stderr

    async def wait(self) -> int:
        await self._ended.wait()
        return self._status or 0

    def terminate(self) -> None:
        self._begin(self._end("terminate"))

    def kill(self) -> None:
        if self._status is not None:
            raise ProcessLookupError
        self._begin(self._kill())

    # --- the actor ---

    async def _fetch(self) -> None:
        while self._status is None:
            await self._pause.may_read.wait()
            try:
                fetched: WorkerSaid = await self._actor.fetch.remote(self._head)
            except Exception as exc:  # noqa: BLE001 - Ray has many, and all mean that nothing more comes
                await self._lose(exc)
                return
            self._feed(fetched.frames, fetched.errors)
            if fetched.status is not None:
                await self._close(fetched.status)

    async def _write(self) -> None:
        while True:
            await self._stdin.changed.wait()
            self._stdin.changed.clear()
            data, self._stdin.pending = bytes(self._stdin.pending), bytearray()
            try:
                await self._actor.write.remote(self._head, data)
            except Exception:  # noqa: BLE001 - which the next fetch meets too
                return

    async def _end(self, how: str) -> None:
        with contextlib.suppress(Exception):
            await self._actor.end.remote(self._head, how)

    async def _kill(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                await self._end("kill")
                await self._ended.wait()
        if self._status is None:
            await self._close(_LOST_STATUS)

    async def _lose(self, error: Exception) -> None:
        if self._status is None:
            said = str(error).strip().partition("\n")[0][:200]
            lost = f"the machine {self.place.node_name}, or what ran the worker there, was lost ({type(error).__name__}: {said})"
            self._feed(encode(Fatal(lost)), b"")
            await self._close(_LOST_STATUS)

    def _feed(self, frames: bytes, errors: bytes) -> None:
        for data, pipe in ((frames, self._stdout), (errors, self._stderr)):
            if data and not pipe.at_eof() and self._status is None:
                pipe.feed_data(data)

    async def _close(self, status: int) -> None:
        """It has ended, or is taken for ended: nothing more comes."""
        if self._status is not None:
            return
        self._status = status
        self._stdout.feed_eof()
        self._stderr.feed_eof()
        self._ended.set()
        self._writer.cancel()
        await self._release()

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
