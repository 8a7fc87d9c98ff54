"""Transport: where a worker's process runs, and what carries its frames.

An engine knows of its worker a duplex stream of bytes, what it writes to stderr, and its exit status. Here they are the pipes of a
child of this process; `kolosal.cluster` has the same of a process on another machine.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import Hello, SavedFolder, encode
from kolosal.engines.ipc.spare import SpareWorker, spawn
from kolosal.engines.ipc.system import memory_kills
from kolosal.engines.parameters import FittedConfig
from kolosal.errors import LoadFailed


class FrameSink(Protocol):
    """Where frames for the worker go. Never blocks."""

    def write(self, data: bytes, /) -> None: ...

    def is_closing(self) -> bool: ...

    def close(self) -> None:
        """The worker reads the end of its pipe."""
        ...


class HostedProcess(Protocol):
    """A worker's process, as `asyncio.subprocess.Process` has one of this machine.

    What is lost with the machine it runs on ends `stdout`, after a `Fatal` frame that says so.
    """

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stdin(self) -> FrameSink | None: ...

    @property
    def stdout(self) -> asyncio.StreamReader | None: ...

    @property
    def stderr(self) -> asyncio.StreamReader | None: ...

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        ...

    def terminate(self) -> None: ...

    def kill(self) -> None:
        """Raises:
        ProcessLookupError: it has ended.
        """
        ...


class Transport(Protocol):
    """Starts workers somewhere."""

    async def start(self, command: WorkerCommand, config: FittedConfig) -> HostedProcess:
        """Start a worker's process and tell it what to load. A cancelled start leaves no process.

        Raises:
            LoadFailed: there is no process.
            InsufficientMemory: there is no room for one.
        """
        ...

    def memory_kills(self) -> int | None:
        """How many processes were ended there because memory ran out; None where nobody says."""
        ...


class LocalTransport:
    """Workers are children of this process. Nothing listens on a socket, so there is nothing to authenticate."""

    def __init__(self, spare: SpareWorker | None = None) -> None:
        """`spare` may have a process already."""
        self._spare = spare

    async def start(self, command: WorkerCommand, config: FittedConfig) -> HostedProcess:
        argv = command.argv_of(config.backend)
        process = None if self._spare is None else self._spare.take(argv, command.environment)
        try:
            process = process or await spawn(argv, command.environment)
        except OSError as exc:
            raise LoadFailed(f"The worker process could not be started: {exc.strerror}") from exc
        assert process.stdin is not None  # noqa: S101 - spawned with a pipe
        process.stdin.write(encode(Hello(config, _saved_folder(command))))
        return process

    def memory_kills(self) -> int | None:
        return memory_kills()


def _saved_folder(command: WorkerCommand) -> SavedFolder | None:
    max_bytes = command.settings.cache_disk_bytes
    return SavedFolder(str(command.saved_folder), max_bytes) if command.saved_folder and max_bytes else None


HERE = LocalTransport()
