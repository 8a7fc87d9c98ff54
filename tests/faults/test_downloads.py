"""D5: the daemon is killed in the middle of a download, again and again. What was fetched in vain is little, and no file is broken."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.fake_registry import FakeRegistry
from tests.fake_worker import fake_worker_argv
from tests.faults.daemons import fake_daemon
from tests.file_server import ServedFile

MODEL = b"GGUF" + random.Random(5).randbytes(8_000_000)  # noqa: S311 - no secret
DEADLINE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.mark.timeout(300)
@pytest.mark.fault("D5")
def test_a_download_outlives_kills_of_the_daemon(
    tmp_path: Path, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    kills = sized(4, 20)
    points = sorted(random.sample(range(len(MODEL) // 20, len(MODEL)), kills))
    with FakeRegistry() as registry:
        served = registry.add("big", "latest", ServedFile(MODEL, bytes_per_s=4_000_000))
        path = f"/blobs/{served.sha256}"
        final = tmp_path / "models" / "ollama" / "blobs" / f"sha256-{served.sha256}"
        part = final.with_name(final.name + ".part")
        settings = {
            "state_dir": str(tmp_path),
            "downloads_ollama_registry": registry.url,
            "keep_engines": True,
        }

        def fetched() -> int:
            return part.stat().st_size if part.exists() else 0

        for number, point in enumerate(points):
            with fake_daemon(fake_worker_argv(), **settings) as daemon:
                if not number:
                    answer = httpx.post(
                        f"{daemon.url}/v1/downloads", json={"source": "ollama:big"}, timeout=30
                    )
                    assert answer.status_code == 202, answer.text
                until(lambda point=point: fetched() >= point or final.exists())  # type: ignore[misc]
                daemon.process.kill()
                daemon.process.wait()
            assert not final.exists() or final.read_bytes() == MODEL
        served.bytes_per_s = None
        with fake_daemon(fake_worker_argv(), **settings) as daemon:
            until(lambda: _status(daemon.url) == "completed")
            daemon.process.terminate()
            daemon.process.wait()
        assert final.read_bytes() == MODEL
        assert sorted(each.name for each in final.parent.iterdir() if ".part" in each.name) == []
        again = registry.cdn.sent[path] / len(MODEL)
        seen(f"{kills} kills, {again:.2f} x the bytes")
        assert again < 2
        registry.cdn.settle()


def _status(url: str) -> str:
    return str(httpx.get(f"{url}/v1/downloads/big:latest").json().get("status"))
