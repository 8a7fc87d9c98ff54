"""`kolosal cluster`: the machines of the daemon's cluster, and which copy of which engine is where."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import typer
from pydantic import JsonValue

from kolosal.commands.answers import Body, items
from kolosal.commands.client import DaemonClient
from kolosal.commands.text import duration, show_table, size

STALE_S = 10.0
"""What was heard longer ago is said to be old."""


async def cluster_status(client: DaemonClient, *, as_json: bool) -> None:
    """Show the cluster; as JSON it is what the daemon answers."""
    body = await client.cluster()
    if as_json:
        typer.echo(json.dumps(body, indent=2))
        return
    nodes = items(body.get("nodes"))
    replicas = [*_replicas(body)]
    show_table(
        [
            ("address:", str(body.get("address"))),
            ("nodes:", _counted(nodes, "alive")),
            ("replicas:", _counted([replica for _, replica in replicas], "ready")),
        ]
    )
    age_s = body.get("age_s")
    if isinstance(age_s, int | float) and age_s > STALE_S:
        typer.echo(f"The nodes were last heard of {duration(age_s)} ago.", err=True)
    typer.echo()
    show_table([*_node_rows(nodes, [replica for _, replica in replicas])])
    if replicas:
        typer.echo()
        show_table([*_replica_rows(replicas)])


async def cluster_drain(client: DaemonClient, node: str) -> None:
    """Empty a node, and wait for that."""
    await client.drain_node(node)
    typer.echo(f"{node}: has no replicas, and gets none until the daemon is started anew")


def _replicas(body: Body) -> Iterator[tuple[str, Body]]:
    for engine in items(body.get("engines")):
        for replica in items(engine.get("replicas")):
            yield str(engine.get("engine_id")), replica


def _counted(rows: list[Body], state: str) -> str:
    return f"{len(rows)}, {sum(row.get('state') == state for row in rows)} {state}"


def _node_rows(nodes: list[Body], replicas: list[Body]) -> Iterator[tuple[str, ...]]:
    yield ("NODE", "STATE", "CPUS FREE", "GPUS FREE", "MEMORY FREE", "REPLICAS")
    counts = Counter(str(replica.get("node_id")) for replica in replicas)
    for node in nodes:
        yield (
            f"{node.get('name')}{' (head)' if node.get('is_head') else ''}",
            str(node.get("state")),
            f"{_number(node.get('cpus_free')):g} of {_number(node.get('cpus')):g}",
            f"{_number(node.get('gpus_free')):g} of {_number(node.get('gpus')):g}",
            f"{_size(node.get('memory_free_bytes'))} of {_size(node.get('memory_bytes'))}",
            str(counts[str(node.get("node_id"))]),
        )


def _replica_rows(replicas: list[tuple[str, Body]]) -> Iterator[tuple[str, ...]]:
    yield ("ENGINE", "REPLICA", "STATE", "NODE", "IN FLIGHT", "TOKENS IN FLIGHT")
    for engine_id, replica in replicas:
        yield (
            engine_id,
            str(replica.get("replica_id")),
            str(replica.get("state")),
            str(replica.get("node_name") or "-"),
            str(replica.get("in_flight")),
            str(replica.get("tokens_in_flight")),
        )


def _number(value: JsonValue) -> float:
    return value if isinstance(value, int | float) else 0


def _size(value: JsonValue) -> str:
    return size(round(_number(value)))
