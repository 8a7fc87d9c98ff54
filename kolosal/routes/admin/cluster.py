"""The cluster: machines, and which copy of which engine is where. Reading it waits for nobody: it is what was last heard."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.routing import Route

from kolosal.cluster.view import ClusterSource, ClusterView
from kolosal.errors import NotFound
from kolosal.http.decode import RequestBody, decode
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.services import services_of


class DrainBody(RequestBody):
    """Which node is to have no replicas."""

    node: Annotated[str, Field(min_length=1, max_length=256)]
    """Its `node_id`, or its `name` where that is one node's only."""


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/cluster", show_cluster),
        Route("/cluster/drain", drain_node, methods=["POST"]),
        first="",
    )


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    answer="Its nodes, and the engines that are placed there with their replicas; 404 where the daemon is in no cluster.",
)
async def show_cluster(request: Request) -> JsonResponse[ClusterView]:
    """The cluster that the daemon has joined, as it was last heard of."""
    return JsonResponse(_cluster(request).view())


@Operation(
    group=Group.DAEMON,
    scope=Access.ADMIN,
    body=DrainBody,
    example={"node": "10.0.0.2"},
    answer="The cluster, once the node has no replicas any more.",
)
async def drain_node(request: Request) -> JsonResponse[ClusterView]:
    """Have no replicas on a node: others are started elsewhere, those there finish what they run. Until the daemon is started anew none is placed there."""
    body = await decode(request, DrainBody)
    cluster = _cluster(request)
    await unless_disconnected(request, cluster.drain(body.node))
    return JsonResponse(cluster.view())


def _cluster(request: Request) -> ClusterSource:
    """Raises:
    NotFound: the daemon is in none.
    """
    cluster = services_of(request).cluster
    if cluster is None:
        raise NotFound("This daemon is in no cluster: start it with `kolosal serve --cluster ADDRESS`")
    return cluster
