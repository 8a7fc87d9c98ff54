"""ClusterEngines: the engines that are placed in a cluster: what the registry starts their workers with, and what those who look see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace

from kolosal.cluster.ray_cluster import RayCluster, Resources
from kolosal.cluster.ray_transport import RayTransport
from kolosal.cluster.replica_set import ReplicaSet
from kolosal.cluster.view import ClusterView, NodeState, ReplicaView
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.ipc.workers import WorkerEvents
from kolosal.engines.memory.fit import LoadPlan
from kolosal.engines.memory.machine import Gpu, MachineMemory
from kolosal.engines.memory.placement import Estimate
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.memory.sizing import Sizes, Sizing
from kolosal.engines.parameters import AUTO, EngineConfig, FittedConfig, Replicas
from kolosal.errors import InvalidRequest
from kolosal.observe.observer import Observer

_THREADS = 4
"""Of a worker, where nobody says: so many CPUs are asked of Ray, or as many as the largest machine has."""

_PLENTY = 1 << 50
"""Ray knows how many GPUs a machine has, and not how large they are."""


class ClusterSizes:
    """Sizes of workers as if each had the largest machine for itself: what Ray is asked for is what it takes there."""

    def __init__(self, cluster: RayCluster, of_files: Sizes) -> None:
        self._cluster = cluster
        self._of_files = of_files

    async def memory(self) -> MachineMemory:
        largest = self._cluster.largest
        n_bytes = 0 if largest is None else largest.memory_bytes
        return MachineMemory(n_bytes, n_bytes)

    async def of(self, config: EngineConfig, memory: MachineMemory) -> Sizing:
        gpus = tuple(Gpu(index, "", _PLENTY, _PLENTY) for index in range(config.num_gpus))
        parameters = config.parameters
        if parameters.n_gpu_layers == AUTO:
            parameters = replace(parameters, n_gpu_layers=-1 if gpus else 0)
        there = replace(memory, gpus=gpus)
        sizing = await self._of_files.of(replace(config, parameters=parameters), there)
        plans = sizing.plans(there.free)
        fitting = next((plan for plan in plans if plan.need.fits(there.free)), plans[-1])
        return _OnePlan(sizing, sizing.grown(fitting, there.free))


class _OnePlan:
    """The sizing of a worker that has a machine for itself."""

    def __init__(self, sizing: Sizing, plan: LoadPlan) -> None:
        self._sizing = sizing
        self._plan = plan

    def plans(self, free: Bytes) -> tuple[LoadPlan, ...]:  # noqa: ARG002 - other engines take nothing of it
        return (self._plan,)

    def grown(self, plan: LoadPlan, free: Bytes) -> LoadPlan:  # noqa: ARG002
        return plan

    def smaller(self, plan: LoadPlan) -> LoadPlan | None:
        return self._sizing.smaller(plan)

    def actual(self, plan: LoadPlan, info: EngineInfo) -> Estimate:
        return self._sizing.actual(plan, info)


class ClusterEngines:
    """See `WorkerLauncher` and `ClusterSource`."""

    def __init__(self, cluster: RayCluster, sizes: ClusterSizes, observer: Observer) -> None:
        """`observer` is told of each replica."""
        self.cluster = cluster
        self._observer = observer
        self._sizes = sizes
        self._sets: dict[str, ReplicaSet] = {}

    async def launch(
        self,
        command: WorkerCommand,
        config: FittedConfig,
        replicas: Callable[[], Replicas],
        events: WorkerEvents,
    ) -> tuple[ReplicaSet, EngineInfo]:
        need = await self._need(config)
        parameters = replace(config.parameters, n_threads=config.parameters.n_threads or int(need.cpus))
        config = replace(config, parameters=parameters)

        def transport(avoid: Collection[str]) -> RayTransport:
            return RayTransport(self.cluster, need, avoid)

        def ended(reason: str) -> None:
            if self._sets.get(config.engine_id) is one:
                del self._sets[config.engine_id]
            events.exit(reason)

        def tell(replica: ReplicaView, state: str, reason: str | None) -> None:
            name, node = replica.replica_id, replica.node_name
            self._observer.replica_state(config.engine_id, name, state, node, reason)

        one = ReplicaSet(command, config, replicas, replace(events, exit=ended), transport, tell)
        self._sets[config.engine_id] = one
        try:
            return one, await one.launch()
        except BaseException:
            if self._sets.get(config.engine_id) is one:
                del self._sets[config.engine_id]
            raise

    async def _need(self, config: FittedConfig) -> Resources:
        sizing = await self._sizes.of(config, await self._sizes.memory())
        host = sizing.plans(Bytes())[0].estimate.host.total
        largest = self.cluster.largest
        cpus = config.parameters.n_threads or min(_THREADS, 1 if largest is None else int(largest.cpus))
        return Resources(max(1, cpus), config.num_gpus, host)

    @property
    def left_over(self) -> Collection[str]:
        """Ids of engines whose workers wait for a head: they end soon where none takes them over."""
        return [*self.cluster.left_over]

    async def drain(self, machine: str) -> None:
        """Have no workers on a machine, and start none there any more; returns once those there have ended.

        Raises:
            InvalidRequest: there is no such machine.
        """
        found = [node for node in self.cluster.nodes if machine in (node.node_id, node.name)]
        alive = [node for node in found if node.state is NodeState.ALIVE]
        if len(alive) != 1:
            names = ", ".join(
                f"{node.name} ({node.node_id})"
                for node in self.cluster.nodes
                if node.state is NodeState.ALIVE
            )
            few = "several machines are called" if alive else "no machine of the cluster is called"
            raise InvalidRequest(f"{few} {machine[:100]!r}. There are: {names}", param="node")
        self.cluster.drained.add(alive[0].node_id)
        ending = [task for each in [*self._sets.values()] for task in each.drain_machine(alive[0].node_id)]
        if ending:
            await asyncio.wait(ending)

    def view(self) -> ClusterView:
        """See `ClusterSource`."""
        cluster = self.cluster
        engines = tuple(each.view() for each in self._sets.values())
        return ClusterView(cluster.address, cluster.age_s, cluster.nodes, engines)

    async def close(self) -> None:
        """Leave the cluster, once all engines are closed."""
        await self.cluster.close()
