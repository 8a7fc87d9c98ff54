"""H3, H4: clients that send slowly or not at all, and readers that do not read, against a daemon in a process of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.sockets import connected, deadlines, lifetime, port_of, received, rss
from tests.gguf_files import gguf
from tests.http.test_daemon import daemon, wait_for

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]

NOISE_S = 0.005
"""Below this a 99th percentile is the scheduler's and not the daemon's."""

_GOOD_CLIENT = """
import http.client, json, sys, time
port, n = map(int, sys.argv[1:])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
taken = []
for _ in range(n):
    began = time.perf_counter()
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    taken.append(time.perf_counter() - began)
    time.sleep(0.005)
print(json.dumps(sorted(taken)[int(n * 0.99)]))
"""

HEAD = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: "
BODY = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{"


async def p99_s(port: int, n_requests: int) -> float:
    """The 99th percentile of a good client's latency, measured in a process of its own."""
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _GOOD_CLIENT, str(port), str(n_requests), stdout=subprocess.PIPE
    )
    told, _ = await client.communicate()
    assert client.returncode == 0
    return float(json.loads(told))


@pytest.mark.fault("H3")
async def test_slow_and_silent_connections_are_closed_at_their_deadline(sized: Sized, seen: Seen) -> None:
    n_headers, n_idle, n_bodies = sized(20, 1000), sized(20, 1000), sized(10, 200)
    deadline_s, n_requests = sized(1, 8), sized(20, 1000)
    late_s = sized(10, 1)  # the figure is 1 s, which a machine that does other things may miss
    with daemon(
        preamble=deadlines(header=deadline_s, body=deadline_s), max_connections=5000, access_log=False
    ) as (process, url):
        port = port_of(url)
        idle_p99_s = await p99_s(port, n_requests)
        before = rss(process)
        slow = [lifetime(port, HEAD, b"a" * 100) for _ in range(n_headers)]
        slow += [lifetime(port, b"") for _ in range(n_idle)]
        slow += [lifetime(port, BODY, b" " * 100) for _ in range(n_bodies)]
        meanwhile = asyncio.create_task(p99_s(port, n_requests))
        lifetimes = await asyncio.gather(*slow)
        p99 = await meanwhile
        growth = rss(process) - before

    soonest, latest = min(each.most for each in lifetimes), max(each.least for each in lifetimes)
    assert soonest > deadline_s - min(1, deadline_s / 2)
    assert latest < deadline_s + late_s
    if late_s == 1:
        assert p99 < 2 * max(idle_p99_s, NOISE_S)
    seen(
        f"{len(lifetimes)} closed {soonest:.2f} to {latest:.2f} s after they came, at a deadline of"
        f" {deadline_s} s; p99 {1000 * p99:.1f} ms, idle {1000 * idle_p99_s:.1f} ms; RSS +{growth / 1e6:.1f} MB"
    )


SMALL_BUFFERS = """
import socket
from kolosal import daemon
bind = daemon.listen
def bind_small(host, port):
    listener = bind(host, port)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return listener
daemon.listen = bind_small
"""
"""The kernel holds little of an answer, so that it is soon the daemon that does. Connections inherit it."""

MAX_STREAM_BYTES = 64 * 1024


@contextmanager
def streams(port: int, n_streams: int, max_tokens: int) -> Iterator[list[socket.socket]]:
    """Streams that were asked for and are not read."""
    body = json.dumps({"model": "a", "prompt": "1:", "stream": True, "max_tokens": max_tokens}).encode()
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    )
    with ExitStack() as stack:
        sockets = [stack.enter_context(connected(port, receive_buffer=4096)) for _ in range(n_streams)]
        for each in sockets:
            each.sendall(head % len(body) + body)
        yield sockets


def n_connections(process: subprocess.Popen[str]) -> int:
    """Connections that a daemon has. One that it gave up is still there for its client, whose unread bytes the kernel keeps."""
    return sum(
        each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(process.pid).net_connections()
    )


@pytest.mark.fault("H4")
@pytest.mark.skipif(sys.platform == "win32", reason="buffers of Windows sockets cannot be bounded")
def test_streams_that_nobody_reads_cost_little_and_are_dropped(
    tmp_path: Path, sized: Sized, seen: Seen
) -> None:
    n_streams = sized(20, 200)
    (tmp_path / "a.gguf").write_bytes(gguf())
    parameters = {"n_ctx": 5000, "n_parallel": n_streams + 1}
    model = {"id": "a", "path": str(tmp_path / "a.gguf"), "parameters": parameters}
    with daemon(
        "step_s=0.002", preamble=deadlines(write=sized(2, 10)) + SMALL_BUFFERS, models=[model],
        access_log=False,
    ) as (process, url):  # fmt: skip
        wait_for(url, "loaded")
        port = port_of(url)
        with httpx.Client(base_url=url, timeout=60) as http:
            good = {"model": "a", "prompt": "1:", "max_tokens": 200}
            undisturbed = http.post("/v1/completions", json=good).json()["choices"][0]["text"]
            with streams(port, n_streams, max_tokens=10) as warming_up:
                assert all(b"[DONE]" in received(each) for each in warming_up)
            before = peak = rss(process)
            with streams(port, n_streams, max_tokens=1000):
                beside = http.post("/v1/completions", json=good).json()["choices"][0]["text"]
                deadline = time.monotonic() + 120
                while n_connections(process) > 1 or http.get("/engines/a").json()["in_flight"]:
                    assert time.monotonic() < deadline
                    peak = max(peak, rss(process))
                    time.sleep(0.1)
            assert beside == undisturbed
    each = (peak - before) / n_streams
    seen(f"{n_streams} streams dropped, {each / 1024:.0f} KiB each, a good one beside them unchanged")
    assert each < sized(4, 1) * MAX_STREAM_BYTES
