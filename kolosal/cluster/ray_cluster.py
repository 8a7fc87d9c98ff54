"""RayCluster: the cluster as one daemon, its head, has it: joined, asked for places, looked at.

The only module that imports Ray on the head, and it does so when a cluster is joined. Ray places actors, supervises them and finds out
which machines are gone. Calls of Ray that may wait for another process are made in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kolosal.cluster.errors import ClusterError
from kolosal.cluster.head_lock import BEAT_S, Head, HeadLock
from kolosal.cluster.ray_process import RayProcess
from kolosal.cluster.view import NodeState, NodeView
from kolosal.cluster.worker_host import WorkerHost
from kolosal.engines.parameters import Strategy

log = logging.getLogger(__name__)

NAMESPACE = "kolosal"
"""Of all named actors in the cluster."""

_LOCK = "head"
_WORKER = "worker/"

_REACH_S = 5.0
"""How long a machine may take to answer at all."""

_JOIN_S = 60.0
_LOOK_EVERY_S = 2.0

_GPU, _CPU, _MEMORY = "GPU", "CPU", "memory"

_RAY_SETTINGS = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "31536000",  # else Ray ends this process a minute after the cluster's head is lost
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker needs."""

    cpus: float
    gpus: int
    memory_bytes: int


class RayCluster:
    """A joined cluster. Used on the event loop only; `join` makes one."""

    def __init__(self, ray: Any, address: str, head: Head) -> None:
        self.address = address
        self.head = head
        self._ray = ray
        self._lock: Any = None
        self._nodes: tuple[NodeView, ...] = ()
        self._looked_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self.left_over: dict[str, list[str]] = {}
        """Names of actors that a head before this one left, by engine."""
        self.drained: set[str] = set()
        """Ids of machines that get no new workers."""

    @classmethod
    async def join(cls, address: str, *, wait_s: float = _JOIN_S) -> RayCluster:
        """Join a cluster as its head. `auto`: the one that was started on this machine.

        Raises:
            ClusterError: Ray is not installed, the cluster does not answer, or has a head.
        """
        for name, value in _RAY_SETTINGS.items():
            os.environ.setdefault(name, value)
        ray = await asyncio.to_thread(_import_ray)
        await _expect_answer(address)
        try:
            async with asyncio.timeout(wait_s):
                await asyncio.to_thread(_init, ray, address)
        except TimeoutError:
            raise ClusterError(f"The Ray cluster at {address} does not answer") from None
        except Exception as exc:  # whatever Ray says
            said = " ".join(str(exc).split())[:300]
            raise ClusterError(f"The Ray cluster at {address} cannot be joined: {said}") from exc
        here = ray.util.get_node_ip_address()
        cluster = cls(
            ray, address, Head(f"{here}/{os.getpid()}/{uuid.uuid4().hex}", socket.gethostname(), os.getpid())
        )
        try:
            await cluster._claim()
        except BaseException:
            await asyncio.to_thread(ray.shutdown)
            raise
        await cluster._look()
        cluster.left_over = await asyncio.to_thread(_named_workers, ray)
        cluster._tasks = [asyncio.create_task(cluster._keep_up(), name="cluster")]
        return cluster

    async def close(self) -> None:
        """Give the cluster up. Workers that were not ended before end by themselves."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_REACH_S):
                await self._lock.release.remote(self.head.name)
        await asyncio.to_thread(self._ray.shutdown)

    # --- being the head ---

    async def _claim(self) -> None:
        options = {
            "name": _LOCK,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "max_restarts": -1,
        }
        remote = self._ray.remote(HeadLock)
        self._lock = await asyncio.to_thread(lambda: remote.options(**options).remote())
        for again in (True, False):
            try:
                async with asyncio.timeout(_JOIN_S):
                    other: Head | None = await self._lock.claim.remote(self.head)
            except Exception as exc:  # whatever Ray says
                raise ClusterError(
                    f"The Ray cluster at {self.address} runs no actors: {type(exc).__name__}"
                ) from exc
            if other is None:
                return
            if again and (other.ended_here() or await self._falls_silent()):
                await self._lock.release.remote(other.name)
                continue
            raise ClusterError(
                f"The Ray cluster at {self.address} has a head already: the daemon with process id {other.pid} on {other.host}"
            )

    async def _falls_silent(self) -> bool:
        """Whether the head that there is gives no sign of life for a while."""
        first = await self._lock.last_beat.remote()
        await asyncio.sleep(2.5 * BEAT_S)
        return bool(first == await self._lock.last_beat.remote())

    async def _keep_up(self) -> None:
        beat_at = 0.0
        while True:
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + BEAT_S
                await self._beat()
            with contextlib.suppress(Exception):  # the next look may tell
                await self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _beat(self) -> None:
        try:
            async with asyncio.timeout(_REACH_S):
                other: Head | None = await self._lock.claim.remote(self.head)
        except Exception as exc:  # noqa: BLE001 - whatever Ray says, the next beat may do
            log.warning("cluster.silent", extra={"reason": type(exc).__name__})
            return
        if other is not None:
            log.error("cluster.head_lost", extra={"host": other.host, "pid": other.pid})

    # --- machines ---

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        """All machines as they were last heard of."""
        return self._nodes

    @property
    def age_s(self) -> float:
        """Seconds since."""
        return time.monotonic() - self._looked_at

    async def _look(self) -> None:
        self._nodes = await asyncio.to_thread(_nodes, self._ray)
        self._looked_at = time.monotonic()

    def why_never(self, need: Resources) -> str | None:
        """Why no machine can have such a worker, also when nothing else runs; None where one can."""
        alive = [node for node in self._nodes if node.state is NodeState.ALIVE]
        if any(_has(node, need) for node in alive):
            return None
        wants = _amount(need.gpus, need.cpus, need.memory_bytes)
        there = (
            "; ".join(f"{node.name}: {_amount(node.gpus, node.cpus, node.memory_bytes)}" for node in alive)
            or "none"
        )
        return f"No machine of the cluster has {wants} for a worker. There are: {there}"

    @property
    def largest(self) -> NodeView | None:
        """The machine with the most memory."""
        alive = [node for node in self._nodes if node.state is NodeState.ALIVE]
        return max(alive, key=lambda node: node.memory_bytes, default=None)

    # --- actors ---

    async def create(
        self, engine_id: str, need: Resources, strategy: Strategy, avoid: Collection[str] = ()
    ) -> Any:
        """The handle of a new `WorkerHost`, which Ray places once there is room; on none of the machines to `avoid`."""
        without = {*avoid, *self.drained}
        options: dict[str, Any] = {
            "name": f"{_WORKER}{engine_id}/{uuid.uuid4().hex[:12]}",
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "num_cpus": need.cpus,
            "num_gpus": need.gpus,
            "memory": need.memory_bytes,
            "max_restarts": 0,
            "max_concurrency": 100,
            "scheduling_strategy": "SPREAD" if strategy is Strategy.SPREAD else "DEFAULT",
        }
        if without:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(without))})"}
        remote = self._ray.remote(WorkerHost)
        return await asyncio.to_thread(lambda: remote.options(**options).remote())

    async def take_left_over(self, engine_id: str) -> Any | None:
        """The handle of a `WorkerHost` that a head before this one left, each once."""
        while names := self.left_over.get(engine_id):
            name = names.pop()
            with contextlib.suppress(ValueError):  # it has ended meanwhile
                return await asyncio.to_thread(self._ray.get_actor, name, namespace=NAMESPACE)
        return None

    async def end(self, actor: Any) -> None:
        """End an actor, and with it its worker."""
        with contextlib.suppress(Exception):
            await asyncio.to_thread(self._ray.kill, actor)

    def process(self, actor: Any, pid: int, place: Any) -> RayProcess:
        """The worker's process that an actor has."""

        async def release() -> None:
            await self.end(actor)

        return RayProcess(actor, self.head.name, pid, place, release)


def _import_ray() -> Any:
    """Raises:
    ClusterError: it is not installed.
    """
    records = logging.getLogRecordFactory()
    try:
        import ray  # noqa: PLC0415 - an extra, slow to import, and only for who wants a cluster
    except ImportError as exc:
        raise ClusterError("A cluster needs the extra 'cluster': pip install 'kolosal[cluster]'") from exc
    logging.setLogRecordFactory(records)  # Ray's adds a field to every line
    return ray


async def _expect_answer(address: str) -> None:
    """See that something listens: Ray itself would wait for long."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto" or not host or not port.isdigit():
        return
    try:
        async with asyncio.timeout(_REACH_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError) as exc:
        reason = getattr(exc, "strerror", None) or "no answer"
        raise ClusterError(
            f"Nothing answers at {address}, where the Ray cluster should be: {reason}"
        ) from exc
    writer.close()


def _init(ray: Any, address: str) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(
        address=address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )


def _named_workers(ray: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in ray.util.list_named_actors(all_namespaces=True):
        name = each["name"]
        if each["namespace"] == NAMESPACE and name.startswith(_WORKER):
            engine_id = name.removeprefix(_WORKER).rpartition("/")[0]
            found.setdefault(engine_id, []).append(name)
    return found


def _nodes(ray: Any) -> tuple[NodeView, ...]:
    from ray._private import state  # noqa: PLC0415 - Ray has no public word for what is free on each machine

    free: Mapping[str, Mapping[str, float]] = state.available_resources_per_node()
    here = ray.get_runtime_context().get_node_id()
    return tuple(_node(each, free.get(each["NodeID"], {}), here) for each in ray.nodes())


def _node(node: Mapping[str, Any], free: Mapping[str, float], here: str) -> NodeView:
    has: Mapping[str, float] = node["Resources"]
    return NodeView(
        node["NodeID"],
        node["NodeManagerAddress"],
        NodeState.ALIVE if node["Alive"] else NodeState.DEAD,
        node["NodeID"] == here,
        has.get(_CPU, 0.0),
        free.get(_CPU, 0.0),
        has.get(_GPU, 0.0),
        free.get(_GPU, 0.0),
        int(has.get(_MEMORY, 0.0)),
        int(free.get(_MEMORY, 0.0)),
    )


def _has(node: NodeView, need: Resources) -> bool:
    return node.cpus >= need.cpus and node.gpus >= need.gpus and node.memory_bytes >= need.memory_bytes


def _amount(gpus: float, cpus: float, memory_bytes: int) -> str:
    return f"{gpus:g} GPUs, {cpus:g} CPUs and {memory_bytes / 2**30:.1f} GiB"
