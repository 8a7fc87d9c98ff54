"""`kolosal cluster status`, against a stub daemon."""

from __future__ import annotations

import json

import orjson

from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon
from tests.fakes import FakeCluster

CLUSTER = orjson.loads(orjson.dumps(FakeCluster().view()))
"""As `GET /cluster` answers."""


def test_nodes_and_replicas_are_tables(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/cluster"] = CLUSTER
    done = cli("cluster", "status", "--url", stub.url)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "address:   10.0.0.1:6379",
        "nodes:     2, 1 alive",
        "replicas:  2, 1 ready",
        "",
        "NODE             STATE  CPUS FREE  GPUS FREE  MEMORY FREE           REPLICAS",
        "10.0.0.1 (head)  alive  4 of 8     0 of 0     21.0 GiB of 32.0 GiB  1",
        "10.0.0.2         dead   12 of 16   0 of 1     55.0 GiB of 64.0 GiB  0",
        "",
        "ENGINE  REPLICA  STATE     NODE      IN FLIGHT  TOKENS IN FLIGHT",
        "far     r1       ready     10.0.0.1  2          910",
        "far     r2       starting  -         0          0",
    ]


def test_as_json_it_is_the_daemons_answer(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/cluster"] = CLUSTER
    assert json.loads(cli("cluster", "status", "--json", "--url", stub.url).out) == CLUSTER


def test_what_was_heard_long_ago_is_said_to_be_old(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/cluster"] = CLUSTER | {"age_s": 61.0}
    done = cli("cluster", "status", "--url", stub.url)
    assert done.err == "The nodes were last heard of 1 min 1 s ago.\n"


def test_without_a_cluster_the_daemon_says_so(cli: Cli, stub: StubDaemon) -> None:
    stub.refusal = (404, {"error": {"message": "This daemon is in no cluster: start it with …"}})
    done = cli("cluster", "status", "--url", stub.url)
    assert (done.code, done.out, done.err) == (
        1,
        "",
        "Error: This daemon is in no cluster: start it with …\n",
    )


def test_drain_says_when_it_is_done(cli: Cli, stub: StubDaemon) -> None:
    stub.answers["/cluster/drain"] = CLUSTER
    done = cli("cluster", "drain", "10.0.0.2", "--url", stub.url)
    assert (done.code, done.out) == (
        0,
        "10.0.0.2: has no replicas, and gets none until the daemon is started anew\n",
    )
    assert stub.bodies("POST", "/cluster/drain") == [{"node": "10.0.0.2"}]
