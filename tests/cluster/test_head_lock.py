"""One head at a time."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kolosal.cluster.errors import ClusterError
from kolosal.cluster.head_lock import Head, HeadLock
from kolosal.cluster.ray_cluster import RayCluster


def test_a_head_is_one_until_it_says_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("kolosal.cluster.head_lock.time.monotonic", lambda: now)
    lock, first, second = HeadLock(), Head("1", "a", 1), Head("2", "b", 2)
    assert lock.claim(first) is None
    now += 11
    assert (lock.claim(second), lock.claim(first)) == (first, None)
    now += 11
    assert lock.claim(second) == first
    now += 1
    assert lock.claim(second) is None
    lock.release("1")
    assert lock.claim(first) == second
    lock.release("2")
    assert lock.claim(first) is None


def test_a_head_that_ended_on_this_machine_is_known_to_have() -> None:
    gone = Head("1", socket.gethostname(), 2**22 + 1)
    assert gone.ended_here()
    assert not Head("1", socket.gethostname(), os.getpid()).ended_here()
    assert not Head("1", "elsewhere", gone.pid).ended_here()


async def test_what_does_not_answer_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray.py").write_text("")  # Ray need not be installed for that
    monkeypatch.syspath_prepend(str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"Nothing answers at {address}, where the Ray cluster should be"):
        await RayCluster.join(address)


async def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'kolosal\[cluster\]'"):
        await RayCluster.join("auto")
