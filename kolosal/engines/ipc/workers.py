"""What an engine knows of its worker: one process, or several that answer as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import EngineInfo, FromWorker, ToWorker
from kolosal.engines.ipc.process import WorkerProcess
from kolosal.engines.ipc.spare import SpareWorker
from kolosal.engines.ipc.transport import LocalTransport
from kolosal.engines.parameters import LLAMACPP, FittedConfig, Replicas
from kolosal.errors import LoadFailed


class Worker(Protocol):
    """What serves an engine's model."""

    @property
    def pid(self) -> int | None:
        """Its process on this machine; None where it has none here."""
        ...

    @property
    def copies(self) -> int:
        """How many processes take requests."""
        ...

    def send(self, frame: ToWorker) -> None:
        """Never blocks. Raises `PayloadTooLarge`."""
        ...

    async def stop(self) -> None:
        """End it, and wait until it is gone. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """What an engine is told of its worker. All are called on the event loop."""

    progress: Callable[[float], None]
    """How much of the model is loaded, from 0 to 1, until it is ready."""
    frame: Callable[[FromWorker], None]
    """Each frame after the handshake; a `FrameError` it raises is the worker's fault and ends its process."""
    exit: Callable[[str], None]
    """Once, when nothing serves the model any more: why, in words."""
    stderr: Callable[[bytes], None]
    """What it writes there, and nothing when that ends."""
    moved: Callable[[Sequence[int], str | None], None]
    """One of several processes serves these requests no more, which are to be sent again: why, where it died of itself."""


class WorkerLauncher(Protocol):
    """Starts the workers of engines in one place."""

    async def launch(
        self,
        command: WorkerCommand,
        config: FittedConfig,
        replicas: Callable[[], Replicas],
        events: WorkerEvents,
    ) -> tuple[Worker, EngineInfo]:
        """Have a model loaded; return when it is ready. A cancelled launch leaves no process.

        `replicas` says how many processes are wanted, where there can be several; it may change.

        Raises:
            LoadFailed: it cannot be loaded.
            InsufficientMemory: there is no room for it.
        """
        ...

    async def close(self) -> None:
        """Give up what it has besides workers, which have ended."""
        ...


class OnThisMachine:
    """One child process for each engine."""

    def __init__(self, spare: SpareWorker | None = None) -> None:
        """`spare` is kept ready while there are workers of llama.cpp, and closed with this."""
        self._spare = spare
        self._transport = LocalTransport(spare)
        self._n_workers = 0

    async def launch(
        self,
        command: WorkerCommand,
        config: FittedConfig,
        replicas: Callable[[], Replicas],  # noqa: ARG002 - more of them would share the same cores
        events: WorkerEvents,
    ) -> tuple[Worker, EngineInfo]:
        try:
            launched = await WorkerProcess.launch(
                command,
                config,
                on_progress=events.progress,
                on_frame=events.frame,
                on_exit=partial(self._on_exit, events.exit),
                on_stderr=events.stderr,
                transport=self._transport,
            )
            self._n_workers += 1
        finally:
            if self._spare is not None and self._n_workers and config.backend == LLAMACPP:
                self._spare.keep(command.argv, command.environment)
        return launched

    def _on_exit(self, report: Callable[[str], None], reason: str) -> None:
        self._n_workers -= 1
        if self._spare is not None and not self._n_workers:
            self._spare.release()
        report(reason)

    async def close(self) -> None:
        if self._spare is not None:
            await self._spare.close()


class Nowhere:
    """For a place that this daemon does not have."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def launch(
        self,
        command: WorkerCommand,  # noqa: ARG002
        config: FittedConfig,  # noqa: ARG002
        replicas: Callable[[], Replicas],  # noqa: ARG002
        events: WorkerEvents,  # noqa: ARG002
    ) -> tuple[Worker, EngineInfo]:
        raise LoadFailed(self._reason, param="placement")

    async def close(self) -> None:
        """Nothing to do."""
