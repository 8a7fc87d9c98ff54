"""RayTransport: starts a worker on a machine of the cluster, or goes on with one that a head before this one left there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

from kolosal.cluster.model_store import PIECE_BYTES, FileWanted, files_of, with_digests
from kolosal.cluster.ray_cluster import RayCluster, Resources
from kolosal.cluster.ray_process import RayProcess
from kolosal.cluster.worker_host import Placed, WorkerOrder
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import FittedConfig
from kolosal.errors import InsufficientMemory, LoadFailed

_ANSWER_S = 30.0
"""How long an actor that has its place may take to answer."""


class RayTransport:
    """For one worker."""

    adopted = False
    """Whether it was there before this head was."""
    place: Placed | None = None
    """Where it is, once that is known."""

    def __init__(self, cluster: RayCluster, need: Resources, avoid: Collection[str] = ()) -> None:
        """`avoid`: ids of machines that it must not be on."""
        self._cluster = cluster
        self._need = need
        self._avoid = avoid

    def memory_kills(self) -> int | None:
        return None

    async def start(self, command: WorkerCommand, config: FittedConfig) -> RayProcess:
        """See `Transport`."""
        return await self._go_on(config) or await self._start(command, config)

    async def _go_on(self, config: FittedConfig) -> RayProcess | None:
        """The worker of a head before this one, if there is one that is as this one is to be."""
        while (actor := await self._cluster.take_left_over(config.engine_id)) is not None:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    pid = await actor.attach.remote(self._cluster.head.name, config)
                    self.place = await actor.place.remote()
            except Exception:  # noqa: BLE001 - Ray has many, and all mean that it is of no use
                pid = None
            if pid is not None:
                self.adopted = True
                return self._cluster.process(actor, pid, self.place)
            await self._cluster.end(actor)
        return None

    async def _start(self, command: WorkerCommand, config: FittedConfig) -> RayProcess:
        why_never = self._cluster.why_never(self._need)
        if why_never is not None:
            raise LoadFailed(why_never)
        actor = await self._cluster.create(config.engine_id, self._need, config.strategy, self._avoid)
        try:
            place = self.place = await self._placed(actor, command.settings.room_wait_s)
            try:
                files = await self._there(actor, config, place)
                argv = command.argv if command.argv != WorkerCommand().argv else None
                order = WorkerOrder(self._cluster.head.name, config, argv, dict(command.backends), files)
                pid: int = await actor.start.remote(order)
            except LoadFailed:
                raise
            except Exception as exc:
                raise LoadFailed(f"No worker could be started on {place.node_name}: {_said(exc)}") from exc
        except BaseException:
            await asyncio.shield(self._cluster.end(actor))
            raise
        return self._cluster.process(actor, pid, place)

    async def _placed(self, actor: Any, wait_s: float) -> Placed:
        try:
            async with asyncio.timeout(wait_s):
                place: Placed = await actor.place.remote()
        except TimeoutError:
            raise InsufficientMemory(
                f"No machine of the cluster had room for a worker within {wait_s:g} seconds"
            ) from None
        except Exception as exc:
            raise LoadFailed(f"A machine of the cluster cannot host a worker: {_said(exc)}") from exc
        return place

    async def _there(self, actor: Any, config: FittedConfig, place: Placed) -> tuple[FileWanted, ...]:
        """Have the model's files on the machine; how they are called there follows from what is returned."""
        files = await asyncio.to_thread(files_of, config)
        if not await actor.missing.remote(files):
            return files
        files = await asyncio.to_thread(with_digests, files)
        for file in await actor.missing.remote(files):
            for offset in range(0, file.size, PIECE_BYTES):
                piece = await asyncio.to_thread(_read, Path(file.path), offset)
                try:
                    await actor.receive.remote(file, offset, piece)
                except Exception as exc:
                    raise LoadFailed(
                        f"The model file {Path(file.path).name} is not on {place.node_name}, and could not be sent there: {_said(exc)}"
                    ) from exc
        return files


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)


def _said(error: Exception) -> str:
    """What an error of Ray's says, which quotes a traceback: its last line."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {(str(cause).strip().splitlines() or [''])[-1][:200]}"


__all__ = ["RayTransport"]
