"""P7: the daemon is killed, and nobody is left to tell its workers."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from tests.engines.helpers import in_turn, wait_gone
from tests.faults.daemons import FakeDaemon, fake_daemon
from tests.gguf_files import gguf

FakeWorker = Callable[..., WorkerCommand]

GONE_WITHIN_S = 2.0

DECODES, LOADS, STREAMS, RESTS = "abcd"


def models(folder: Path) -> list[dict[str, object]]:
    (folder / "model.gguf").write_bytes(gguf())
    common = {"path": str(folder / "model.gguf"), "parameters": {"n_ctx": 5000}}
    return [{"id": name, "load_immediately": False, **common} for name in "abcd"]


def ask_for(daemon: FakeDaemon, name: str, *, max_tokens: int = 4000) -> httpx.Response:
    body = {"model": name, "prompt": "5:", "max_tokens": max_tokens}
    return httpx.post(f"{daemon.url}/v1/completions", json=body, timeout=30)


def ask_in_vain(daemon: FakeDaemon, name: str) -> threading.Thread:
    """A request that outlives the daemon."""

    def ask() -> None:
        with pytest.raises(httpx.HTTPError):
            ask_for(daemon, name)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.fault("P7")
@pytest.mark.skipif(sys.platform == "win32", reason="the tests' workers start in turn by execv")
def test_a_killed_daemon_leaves_nothing_behind(
    tmp_path: Path,
    fake_worker: FakeWorker,
    sized: Callable[[int, int], int],
    seen: Callable[[str], None],
) -> None:
    """Four workers: one inside a decode that does not return, one that streams, one at rest, one inside its load."""
    within_s = sized(10, 1) * GONE_WITHIN_S  # of the clock's time, of which a busy machine takes more
    order = (DECODES, STREAMS, RESTS, LOADS)
    faults = {DECODES: "hang@2", STREAMS: "step_s=0.01", RESTS: "step_s=0", LOADS: "load_hang"}
    command = in_turn(tmp_path, *(fake_worker(faults[name]) for name in order))
    state = tmp_path / "state"
    settings = {"models": models(tmp_path), "keep_engines": True, "state_dir": str(state)}
    with fake_daemon(command.argv, **settings) as daemon:
        added = {"engine_id": "kept", "model_path": str(tmp_path / "model.gguf"), "load_immediately": False}
        assert httpx.post(f"{daemon.url}/engines", json=added).status_code == 201
        asking = []
        for name in order:
            if name == RESTS:
                assert ask_for(daemon, name, max_tokens=1).status_code == 200
            else:
                asking.append(ask_in_vain(daemon, name))
            daemon.until(**{name: "loading" if name == LOADS else "ready"})
        workers = daemon.workers(4)
        time_of_death = time.monotonic()
        daemon.process.kill()
        assert all(wait_gone(worker.pid, within_s) for worker in workers)
        gone_s = time.monotonic() - time_of_death
        assert gone_s < within_s
        for thread in asking:
            thread.join(10)
            assert not thread.is_alive()

    with fake_daemon(fake_worker().argv, **settings, port=daemon.port) as again:
        assert again.states() == dict.fromkeys([*"abcd", "kept"], "unloaded")
        answer = ask_for(again, "kept", max_tokens=4)
        assert answer.json()["choices"][0]["text"] == "6 7 "
    assert all(json.loads(path.read_text()) for path in state.rglob("*.json"))
    seen(f"4 workers gone after {gone_s:.3f} s; the next one has the same port and engines")
