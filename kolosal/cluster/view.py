"""ClusterView: what a cluster is at one moment, for those who look: `GET /cluster`, `kolosal cluster status`, metrics, the console.

Values only. Whoever holds the connection to the cluster makes one of what it last heard, and gives it out through `ClusterSource`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class NodeState(StrEnum):
    """Whether a machine answers."""

    ALIVE = "alive"
    DEAD = "dead"
    """It does not answer any more, or has left. Its replicas are placed elsewhere."""


class ReplicaState(StrEnum):
    """Where a replica is in its life. One that has ended is not there any more."""

    STARTING = "starting"
    """It waits for its place, its model file, or its worker."""
    READY = "ready"
    DRAINING = "draining"
    """It finishes what it runs, gets nothing new, and ends."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One machine of the cluster. What is free is what is not yet promised to anybody."""

    node_id: str
    name: str
    """Its address on the cluster's network."""
    state: NodeState
    is_head: bool
    """Whether the head daemon runs there."""
    cpus: float
    cpus_free: float
    gpus: float
    gpus_free: float
    memory_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One copy of an engine."""

    replica_id: str
    state: ReplicaState
    node_id: str | None
    """Where it is; None until it has a place."""
    node_name: str | None
    in_flight: int
    """Requests that it has."""
    tokens_in_flight: int
    """What it has to do, in tokens of a prompt, as the router counts."""


@dataclass(frozen=True, slots=True)
class EngineReplicas:
    """The copies of one engine."""

    engine_id: str
    min: int
    max: int
    replicas: tuple[ReplicaView, ...]

    @property
    def ready(self) -> int:
        """How many take requests."""
        return sum(replica.state is ReplicaState.READY for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cluster as it was last heard of."""

    address: str
    """Where its head is, `host:port`."""
    age_s: float
    """Seconds since the nodes were last heard of."""
    nodes: tuple[NodeView, ...]
    engines: tuple[EngineReplicas, ...]
    """Those that are placed in the cluster. Engines of this machine are not among them."""

    def engine(self, engine_id: str) -> EngineReplicas | None:
        """The copies of an engine; None where it is not placed in the cluster."""
        return next((each for each in self.engines if each.engine_id == engine_id), None)


class ClusterSource(Protocol):
    """What knows the cluster. Given to routes as `Services.cluster`, where the daemon serves one."""

    def view(self) -> ClusterView:
        """The cluster as it was last heard of. Waits for nothing and nobody."""

    async def drain(self, node: str, /) -> None:
        """Have no replicas on a node, given by its id or name, and start none there; returns once those there have ended.

        Raises:
            InvalidRequest: there is no such node.
        """
