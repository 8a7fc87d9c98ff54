"""WorkerHost: what a machine of the cluster has of an engine: one worker's process, and a relay of its frames.

Runs there as a Ray actor, and imports no Ray itself. The process is the one that the head would start on its own machine. Its
frames are collected and given out as whole lines, as many as there are; while nobody fetches them, no more are read
than fit, so the worker's own pipe holds it up. A head that fetches nothing for `HEAD_LOST_S` is gone: the worker ends, unless
another head takes it over before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, replace
from typing import NamedTuple

import orjson

from kolosal.cluster.model_store import FileWanted, ModelStore
from kolosal.engines.ipc.command import WorkerCommand, worker_environment
from kolosal.engines.ipc.messages import MAX_FRAME_BYTES, Hello, encode
from kolosal.engines.ipc.system import spawn_options
from kolosal.engines.parameters import FittedConfig

HEAD_LOST_S = 25.0
"""Without a head for so long, a worker ends."""

POLL_S = 5.0
"""How long a fetch waits for something to be there. It is the head's sign of life, too."""

_MAX_HELD_BYTES = 1024 * 1024
"""Of frames that nobody has fetched yet; one frame more may be longer. Of stderr the newest of as many."""


class Placed(NamedTuple):
    """Where the actor is."""

    node_id: str
    node_name: str


class WorkerSaid(NamedTuple):
    """What a worker said since it was asked last."""

    frames: bytes
    """Whole lines."""
    errors: bytes
    """Of its stderr."""
    status: int | None
    """Its exit status, once all it said was fetched."""


class Superseded(Exception):
    """Another head has taken this worker over."""


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What a head wants to have started."""

    head: str
    """A name of the head, of this run of it."""
    config: FittedConfig
    argv: tuple[str, ...] | None
    """The program, where it is not the one of the backend."""
    backends: dict[str, str]
    """As in `WorkerCommand`."""
    files: tuple[FileWanted, ...]
    """The model's, at the head's paths."""


class WorkerHost:
    """One worker's process. Its methods are called by heads, one call of each kind at a time."""

    def __init__(self) -> None:
        self._order: WorkerOrder | None = None
        self._process: Process | None = None
        self._store = ModelStore()
        self._frames: list[bytes] = []
        self._errors = b""
        self._n_held = 0
        self._ready: bytes | None = None
        self._status: int | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._heard_at = time.monotonic()
        self._tasks = [asyncio.ensure_future(self._watch_head())]

    # --- starting ---

    def place(self) -> Placed:
        """Where this is."""
        import ray  # noqa: PLC0415 - only where it runs

        return Placed(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())

    def missing(self, files: tuple[FileWanted, ...]) -> tuple[FileWanted, ...]:
        """Which of these this machine does not have: neither at the head's path, nor by their digest."""
        self._heard()
        return self._store.missing(files)

    def receive(self, file: FileWanted, offset: int, piece: bytes) -> None:
        """Take a piece of a file that is missing; the last one is checked by its digest.

        Raises:
            OSError: it cannot be kept.
            ValueError: it is another file.
        """
        self._heard()
        self._store.receive(file, offset, piece)

    async def start(self, order: WorkerOrder) -> int:
        """Start the process and tell it what to load; its id.

        Raises:
            OSError: it cannot be started.
        """
        self._heard()
        self._order = order
        command = WorkerCommand(environment=worker_environment(os.environ), backends=order.backends)
        config = self._store.with_paths_of_here(order.config, order.files)
        self._process = await asyncio.create_subprocess_exec(
            *(order.argv or command.argv_of(config.backend)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            limit=MAX_FRAME_BYTES,
            env=command.environment,
            **spawn_options(),
        )
        assert self._process.stdin is not None  # noqa: S101 - spawned with a pipe
        self._process.stdin.write(encode(Hello(config)))
        self._tasks.append(asyncio.ensure_future(self._relay(self._process)))
        return self._process.pid

    def attach(self, head: str, config: FittedConfig) -> int | None:
        """Have another head go on with the worker, where it is one that it wants; its process then, else None.

        What was said to the head before is thrown away; the next fetch begins with the worker's `Ready`.
        """
        if self._order is None or self._process is None or self._ready is None or self._status is not None:
            return None
        if self._order.config != config:
            return None
        self._heard()
        self._order = replace(self._order, head=head)
        self._frames, self._errors, self._n_held = [self._ready], b"", len(self._ready)
        self._changed.set()
        self._room.set()
        return self._process.pid

    # --- relaying ---

    async def write(self, head: str, data: bytes) -> None:
        """Hand the worker frames; returns when its pipe has taken them.

        Raises:
            Superseded: another head has the worker.
        """
        self._check(head)
        stdin = self._process.stdin if self._process is not None else None
        if stdin is not None and not stdin.is_closing():
            stdin.write(data)
            with contextlib.suppress(ConnectionError):  # it has ended, which a fetch tells
                await stdin.drain()

    async def fetch(self, head: str) -> WorkerSaid:
        """What the worker said, as soon as there is something; nothing after `POLL_S`.

        Raises:
            Superseded: another head has the worker.
        """
        deadline = time.monotonic() + POLL_S
        while True:
            self._check(head)
            left_s = deadline - time.monotonic()
            if self._n_held or self._errors or self._status is not None or left_s <= 0:
                break
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
        fetched = WorkerSaid(b"".join(self._frames), self._errors, self._status)
        self._frames, self._errors, self._n_held = [], b"", 0
        self._room.set()
        return fetched

    def end(self, head: str, how: str) -> None:
        """Close the worker's pipe (`close`), or send it a signal (`terminate`, `kill`).

        Raises:
            Superseded: another head has the worker.
        """
        self._check(head)
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(ProcessLookupError):
            match how:
                case "close":
                    self._process.stdin.close()
                case "terminate":
                    self._process.terminate()
                case _:
                    self._process.kill()

    async def _relay(self, process: Process) -> None:
        await asyncio.gather(self._read_frames(process), self._read_errors(process))
        self._status = await process.wait()
        self._changed.set()

    async def _read_frames(self, process: Process) -> None:
        assert process.stdout is not None  # noqa: S101 - spawned with a pipe
        while line := await self._line(process.stdout):
            if self._ready is None and orjson.loads(line).get("tag") == "ready":
                self._ready = line
            self._frames.append(line)
            self._n_held += len(line)
            self._changed.set()
            if self._n_held > _MAX_HELD_BYTES:
                self._room.clear()
                await self._room.wait()

    async def _line(self, stdout: asyncio.StreamReader) -> bytes:
        """The next line; what is too long or no line goes to the head, which ends a worker that says so."""
        try:
            return await stdout.readline()
        except ValueError:
            return await stdout.read(_MAX_HELD_BYTES)

    async def _read_errors(self, process: Process) -> None:
        assert process.stderr is not None  # noqa: S101 - spawned with a pipe
        while chunk := await process.stderr.read(64 * 1024):
            self._errors = (self._errors + chunk)[-_MAX_HELD_BYTES:]
            self._changed.set()

    # --- the head ---

    def _check(self, head: str) -> None:
        if self._order is None or self._order.head != head:
            raise Superseded
        self._heard()

    def _heard(self) -> None:
        self._heard_at = time.monotonic()

    async def _watch_head(self) -> None:
        """End everything once no head has asked for too long."""
        while (left_s := self._heard_at + HEAD_LOST_S - time.monotonic()) > 0:  # noqa: ASYNC110 - what is waited for is silence
            await asyncio.sleep(left_s)
        if self._process is not None and self._status is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        os.kill(os.getpid(), signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
