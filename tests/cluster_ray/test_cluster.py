"""Engines on a real Ray cluster of three nodes, all in this machine: real daemons and workers, the fake backend where many streams run."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from tests.cluster_ray.conftest import DEADLINE_S, Head, Nodes, eventually, head_of
from tests.e2e.helpers import Daemon
from tests.e2e.surfaces import SURFACES

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    ),  # Ray leaves sockets of its own open
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(sys.platform == "win32", reason="Ray for Windows is a trial"),
]

N_STREAMS = 32
SLOW = "step_s=0.02"
N_TOKENS = 500
"""A stream's: some ten seconds."""


def counted(n: int) -> str:
    return " ".join(map(str, range(n + 1, n + N_TOKENS)))[:N_TOKENS]


def workers() -> list[psutil.Process]:
    """The processes that have models and were started by Ray: other tests have workers of their own at the same time."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "tests.fake_worker" not in (process.info["cmdline"] or []):
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(parent.name().startswith("ray") for parent in process.parents()):
                found.append(process)
    return found


class Streams:
    """Many streams of one engine, each by a client of its own."""

    def __init__(self, head: Head, engine_id: str) -> None:
        self._url = str(head.http.base_url)
        self._engine_id = engine_id
        self._begun = [False] * N_STREAMS
        self._pool = concurrent.futures.ThreadPoolExecutor(N_STREAMS)
        self._texts = [self._pool.submit(self._read, n) for n in range(N_STREAMS)]
        eventually(lambda: all(self._begun))

    def _read(self, n: int) -> str:
        body = {"model": self._engine_id, "prompt": f"{100 * n}:", "max_tokens": N_TOKENS, "stream": True}
        text = ""
        with httpx.stream("POST", f"{self._url}/v1/completions", json=body, timeout=120) as answer:
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if data.startswith("{"):
                    event = orjson.loads(data)
                    assert "error" not in event, event
                    text += "".join(choice["text"] for choice in event["choices"])
                    self._begun[n] = True
        return text

    def whole(self) -> int:
        """How many are what they would have been without any loss, once all have ended."""
        texts = [each.result(150) for each in self._texts]
        self._pool.shutdown()
        return sum(text == counted(100 * n) for n, text in enumerate(texts))


@contextmanager
def two_engines(nodes: Nodes, model: Path, *faults: str) -> Iterator[Head]:
    """`a` and `b`, with two workers each."""
    with head_of(nodes, *faults, max_queued=64) as head:
        for engine_id in "ab":
            before = workers()
            assert head.add(engine_id, model, replicas=2, n_parallel=16).status_code == 201
            head.ready(engine_id, 2)
            head.workers[engine_id] = [each for each in workers() if each not in before]
        yield head


def test_two_engines_with_two_workers_each_answer_in_every_dialect(nodes: Nodes, model: Path) -> None:
    with two_engines(nodes, model) as head:
        for engine_id in "ab":
            for name, ask in SURFACES.items():
                assert ask(head.http, engine_id, "<say>far away</say>") == "far away", name
            assert len({each["node_id"] for each in head.replicas(engine_id)}) == 2
        refused = head.add("c", model, num_gpus=3)
        said = refused.json()["error"]["message"]
        assert (refused.status_code, said.partition(",")[0]) == (422, "No machine of the cluster has 3 GPUs")
        assert "There are: " in said
        assert ": 0 GPUs, 4 CPUs and 4.0 GiB" in said


def test_streams_go_on_when_a_worker_is_killed(nodes: Nodes, model: Path) -> None:
    with two_engines(nodes, model, SLOW) as head:
        streams = Streams(head, "a")
        assert sorted(each["in_flight"] for each in head.replicas("a")) == [16, 16]
        for of_one_engine in head.workers.values():
            of_one_engine[0].kill()
        assert streams.whole() == N_STREAMS
        head.ready("a", 2)
        head.ready("b", 2)


def test_streams_go_on_when_a_machine_is_lost(nodes: Nodes, model: Path) -> None:
    with two_engines(nodes, model, SLOW) as head:
        streams = Streams(head, "a")
        lost = nodes.others.pop()
        nodes.raylet(lost).kill()
        assert streams.whole() == N_STREAMS
        nodes.add()
        head.ready("a", 2)


def test_streams_go_on_when_a_machine_is_cut_off(nodes: Nodes, model: Path) -> None:
    with two_engines(nodes, model, SLOW) as head:
        streams = Streams(head, "a")
        raylet = nodes.raylet(nodes.others.pop())
        raylet.suspend()
        try:
            assert streams.whole() == N_STREAMS
        finally:
            raylet.resume()
        nodes.add()
        head.ready("a", 2)


def test_a_machine_is_drained(nodes: Nodes, model: Path) -> None:
    with two_engines(nodes, model, SLOW) as head:
        streams = Streams(head, "a")
        drained = head.replicas("a")[0]["node_id"]
        nodes.add()
        eventually(lambda: sum(each["state"] == "alive" for each in head.nodes()) >= 4)
        assert head.http.post("/cluster/drain", json={"node": drained}).status_code == 200
        assert streams.whole() == N_STREAMS
        for engine_id in "ab":
            assert drained not in {each["node_id"] for each in head.ready(engine_id, 2)}


def test_another_head_goes_on_with_the_workers(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    kept = {"keep_engines": True, "state_dir": str(tmp_path / "state")}
    with head_of(nodes, SLOW, **kept) as head:
        head.add("a", model, replicas=2)
        head.ready("a", 2)
        before = {worker.pid for worker in workers()}
        body = {"model": "a", "prompt": "7:", "max_tokens": 2000, "stream": True}
        with head.http.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_lines())
            head.process.kill()
            head.process.wait()
    with head_of(nodes, SLOW, **kept) as head:
        head.ready("a", 2)
        assert {worker.pid for worker in workers()} == before
        again = head.http.post("/v1/completions", json={"model": "a", "prompt": "7:", "max_tokens": 9}).json()
        assert again["choices"][0]["text"] == "8 9 10 11"
        second = pytest.raises(AssertionError, match="has a head already: the daemon with process id")
        with second, head_of(nodes):
            pass


def test_workers_end_soon_after_a_head_that_nobody_follows(nodes: Nodes, model: Path) -> None:
    others = {worker.pid for worker in workers()}  # of the test before, which may still be ending
    with head_of(nodes) as head:
        head.add("a", model)
        [worker] = [each for each in workers() if each.pid not in others]
        head.process.kill()
        head.process.wait()
    started = time.monotonic()
    eventually(lambda: not worker.is_running(), 40)
    assert time.monotonic() - started < 35


@pytest.mark.model
def test_the_real_model_answers_from_another_machine(nodes: Nodes, tmp_path: Path) -> None:
    path = os.environ["KOLOSAL_TEST_MODEL"]
    running = Daemon.start(tmp_path, "--port", "0", "--cluster", nodes.address)
    try:
        running.wait_until_listening()
        head = Head(running.process, running.url)
        assert head.add("real", Path(path), n_ctx=2048).status_code == 201
        turn = {"role": "user", "content": "Name a colour."}
        body = {"model": "real", "messages": [turn], "max_tokens": 8, "temperature": 0}
        there = head.http.post("/v1/chat/completions", json=body).json()
        body["model"] = "here"
        head.add("here", Path(path), n_ctx=2048, placement="local")
        here = head.http.post("/v1/chat/completions", json=body).json()
        assert there["choices"][0]["message"]["content"] == here["choices"][0]["message"]["content"]
    finally:
        running.process.terminate()
        running.process.wait(DEADLINE_S)
