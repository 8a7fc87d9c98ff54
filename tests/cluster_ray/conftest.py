"""A Ray cluster of three nodes in this machine, and daemons that are its head."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.gguf_files import gguf
from tests.http.test_daemon import daemon

DEADLINE_S = 60.0
"""Longest wait for what Ray must do soon: it starts a Python process for each actor."""

_NODE = {"object_store_memory": 80 * 1024 * 1024, "num_gpus": 0, "memory": 4 * 1024**3}

_QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}
"""Ray's own settings: that a machine is lost is known after seconds, and not after half a minute."""


class Nodes:
    """The machines: one for the head, with no room for workers, and others."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster  # noqa: PLC0415 - an extra

        head = {**_NODE, "num_cpus": 0, "include_dashboard": False, "_system_config": _QUICK}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.others: list[Any] = []

    def add(self) -> Any:
        """One more, with room for four workers of one thread."""
        node = self._cluster.add_node(num_cpus=4, **_NODE)
        self.others.append(node)
        return node

    def raylet(self, node: Any) -> psutil.Process:
        """Ray's own process of a node."""
        [info] = node.all_processes["raylet"]
        return psutil.Process(info.process.pid)

    def close(self) -> None:
        self._cluster.shutdown()
        with warnings.catch_warnings():  # Ray leaves sockets of its own open
            warnings.simplefilter("ignore", ResourceWarning)
            del self._cluster
            gc.collect()


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> None:
    """What is left between tests is the cluster; daemons are ended by their context."""


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """A cluster with three nodes; tests that lose one add another."""
    cluster = Nodes()
    cluster.add()
    cluster.add()
    try:
        yield cluster
    finally:
        cluster.close()


class Head:
    """A daemon that is a cluster's head."""

    def __init__(self, process: Any, url: str) -> None:
        self.process = process
        self.http = httpx.Client(base_url=url, timeout=DEADLINE_S)
        self.workers: dict[str, list[psutil.Process]] = {}
        """Processes that have models, by engine."""

    def add(self, engine_id: str, model: Path, **fields: object) -> httpx.Response:
        """An engine in the cluster, loaded."""
        body = {
            "engine_id": engine_id,
            "model_path": str(model),
            "placement": "ray",
            "n_threads": 1,
            "n_ctx": 4096,
        }
        return self.http.post("/engines", json={**body, **fields})

    def ready(self, engine_id: str, n: int) -> list[dict[str, Any]]:
        """Wait until so many workers are ready; all there are."""
        replicas: list[dict[str, Any]] = []

        def are_ready() -> bool:
            replicas[:] = self.replicas(engine_id)
            return [each["state"] for each in replicas].count("ready") == n

        eventually(are_ready)
        return replicas

    def nodes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/cluster").json()["nodes"]
        return found

    def replicas(self, engine_id: str) -> list[dict[str, Any]]:
        engines = self.http.get("/cluster").json()["engines"]
        return next((each["replicas"] for each in engines if each["engine_id"] == engine_id), [])


@contextlib.contextmanager
def head_of(nodes: Nodes, *faults: str, **settings: object) -> Iterator[Head]:
    with daemon(*faults, **{"cluster": nodes.address, **settings}) as (process, url):  # type: ignore[arg-type]  # or text
        head = Head(process, url)
        try:
            yield head
        finally:
            head.http.close()
            process.terminate()
            process.wait(DEADLINE_S)


def eventually(condition: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf())
    return path
