"""What is told of a cluster: its path, metrics, and the engines that are placed there."""

from __future__ import annotations

import httpx

from kolosal.routes.common.services import Services
from tests.fakes import FakeCluster, FakeEngine, app_with, http_client
from tests.routes.admin.test_metrics import samples

GIB = 1 << 30


def client() -> httpx.AsyncClient:
    app = app_with(FakeEngine("near"), FakeEngine("far"))
    services: Services = app.state.services
    services.cluster = FakeCluster()
    return http_client(app)


async def test_cluster_is_shown() -> None:
    async with client() as http:
        body = (await http.get("/v1/cluster")).json()
    assert (body["address"], body["age_s"]) == ("10.0.0.1:6379", 0.5)
    assert [(node["name"], node["state"], node["memory_free_bytes"]) for node in body["nodes"]] == [
        ("10.0.0.1", "alive", 21 * GIB),
        ("10.0.0.2", "dead", 55 * GIB),
    ]
    assert body["engines"] == [
        {
            "engine_id": "far",
            "min": 1,
            "max": 4,
            "replicas": [
                {
                    "replica_id": "r1",
                    "state": "ready",
                    "node_id": "n1",
                    "node_name": "10.0.0.1",
                    "in_flight": 2,
                    "tokens_in_flight": 910,
                },
                {
                    "replica_id": "r2",
                    "state": "starting",
                    "node_id": None,
                    "node_name": None,
                    "in_flight": 0,
                    "tokens_in_flight": 0,
                },
            ],
        }
    ]


async def test_without_a_cluster_it_is_said_how_to_have_one() -> None:
    async with http_client(app_with(FakeEngine("near"))) as http:
        answer = await http.get("/cluster")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == (
        "This daemon is in no cluster: start it with `kolosal serve --cluster ADDRESS`"
    )


async def test_engines_say_where_their_replicas_are() -> None:
    async with client() as http:
        far = (await http.get("/engines/far")).json()["replicas"]
        listed = (await http.get("/engines?details=true")).json()["engines"]
    assert [replica["node_name"] for replica in far["replicas"]] == ["10.0.0.1", None]
    assert [each["replicas"] for each in listed] == [None, far]


async def test_metrics_count_replicas_and_nodes_by_state() -> None:
    async with client() as http:
        found = samples((await http.get("/metrics/prometheus")).text)
    replicas = {key[1:]: n for key, n in found.items() if key[0] == "kolosal_engine_replicas"}
    nodes = {key[1:]: n for key, n in found.items() if key[0] == "kolosal_cluster_nodes"}
    assert replicas == {("far", "starting"): 1, ("far", "ready"): 1, ("far", "draining"): 0}
    assert nodes == {("alive",): 1, ("dead",): 1}


async def test_a_node_is_drained() -> None:
    cluster = FakeCluster()
    app = app_with(FakeEngine("far"))
    app.state.services.cluster = cluster
    async with http_client(app) as http:
        answer = await http.post("/cluster/drain", json={"node": "10.0.0.2"})
        wrong = await http.post("/cluster/drain", json={"node": ""})
    assert (answer.status_code, answer.json()["address"], cluster.drained) == (
        200,
        "10.0.0.1:6379",
        ["10.0.0.2"],
    )
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "node")
