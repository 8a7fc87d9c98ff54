"""D1 to D3: the disk with the daemon's own files and the models fails, is full of leftovers, or is no disk at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from kolosal.engines.persist import FILE_NAME
from kolosal.security.keys import KeyFile, Scope
from tests.gguf_files import gguf
from tests.http.test_daemon import daemon

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, pipes and limits")

_DEADLINE_S = 60.0

QUICK_RETRIES = """
import kolosal.engines.persist as persist
persist.EngineFile.__init__.__kwdefaults__.update(delays_s=(0.05,), limit_s=0.2)
"""

SILENT_DISK = QUICK_RETRIES + "import time\npersist.store = lambda *_: time.sleep(3600)\n"


@contextmanager
def keeping(
    folder: Path, preamble: str = "", **settings: object
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A daemon that keeps its engines in a folder."""
    with daemon(preamble=preamble, keep_engines=True, state_dir=str(folder), **settings) as started:
        yield started


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf())
    return path


def add(url: str, name: str, path: Path | str, **more: Any) -> httpx.Response:
    body = {"engine_id": name, "model_path": str(path), "load_immediately": False, **more}
    return httpx.post(f"{url}/engines", json=body, timeout=30)


def names(url: str) -> list[str]:
    return [one["engine_id"] for one in httpx.get(f"{url}/engines").json()["engines"]]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def health(url: str) -> tuple[str, list[str]]:
    body = httpx.get(f"{url}/health").json()
    return body["status"], body["problems"]


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics/prometheus").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def stop(process: subprocess.Popen[str]) -> tuple[int, str, float]:
    """Exit status, what it wrote to stderr, and how long it took."""
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=_DEADLINE_S)
    return process.returncode, err, time.monotonic() - started


@pytest.mark.fault("D1")
def test_a_full_disk_is_told_and_written_once_it_has_room(
    tmp_path: Path, model: Path, seen: Callable[[str], None]
) -> None:
    assert sys.platform != "win32"  # for the type checker
    with keeping(tmp_path / "state", QUICK_RETRIES) as (process, url):
        files = psutil.Process(process.pid)
        unlimited = files.rlimit(psutil.RLIMIT_FSIZE)
        files.rlimit(psutil.RLIMIT_FSIZE, (0, unlimited[1]))
        assert add(url, "one", model).status_code == 201
        until(lambda: health(url)[0] == "degraded")
        assert health(url)[1] == ["Engines added at run time are not saved: File too large"]
        assert metric(url, "kolosal_state_saved") == 0
        assert metric(url, "kolosal_state_write_failures_total") >= 1
        assert sorted(path.name for path in (tmp_path / "state").glob("engines*")) == [f"{FILE_NAME}.lock"]

        files.rlimit(psutil.RLIMIT_FSIZE, unlimited)
        until(lambda: health(url) == ("healthy", []))
        assert metric(url, "kolosal_state_saved") == 1
        assert stop(process)[0] == 0
    with keeping(tmp_path / "state") as (_, url):
        assert names(url) == ["one"]
    seen("degraded, counted, saved when there was room, there again after a restart")


@pytest.mark.fault("D1")
def test_a_stop_that_could_not_save_says_so_with_its_status(tmp_path: Path, model: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with keeping(tmp_path / "state", QUICK_RETRIES) as (process, url):
        assert add(url, "one", model).status_code == 201
        until(lambda: health(url)[0] == "degraded")
        status, err, _ = stop(process)
    assert status == 1
    assert err.endswith("Engines added at run time are not saved: its folder is a file\n")


@pytest.mark.fault("D1")
def test_a_disk_that_is_silent_holds_up_neither_requests_nor_the_stop(
    tmp_path: Path, model: Path, seen: Callable[[str], None]
) -> None:
    with keeping(tmp_path / "state", SILENT_DISK) as (process, url):
        assert add(url, "one", model).status_code == 201
        until(lambda: health(url)[0] == "degraded")
        status, err, took_s = stop(process)
    assert status == 1
    assert "the disk" in err
    assert took_s < 5
    seen(f"stopped after {took_s:.1f} s, status 1")


@pytest.mark.fault("D2")
def test_surrogate_name_costs_no_other_engine(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/m\xff.gguf")).write_bytes(gguf())
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    with keeping(tmp_path / "state") as (process, url):
        assert add(url, "before", model).status_code == 201
        refused = add(url, "odd", folder)
        assert add(url, "after", model).status_code == 201
        assert [httpx.get(f"{url}/engines/{name}").status_code for name in ("before", "odd", "after")] == [
            200, 404, 200
        ]  # fmt: skip
        assert stop(process)[0] == 0
    assert refused.status_code == 400
    assert "is not in UTF-8" in refused.json()["error"]["message"]
    with keeping(tmp_path / "state") as (_, url):
        assert names(url) == ["before", "after"]


@pytest.mark.fault("D2")
def test_what_a_kill_leaves_is_cleaned_and_what_is_damaged_is_kept(tmp_path: Path, model: Path) -> None:
    state = tmp_path / "state"
    with keeping(state) as (process, url):
        assert add(url, "one", model).status_code == 201
        until((state / FILE_NAME).exists)
        process.kill()
        process.wait()
    (state / f"{FILE_NAME}.abcd.tmp").write_text("half a fi")
    with keeping(state) as (process, url):
        assert names(url) == ["one"]
        assert health(url)[0] == "healthy"
        assert stop(process)[0] == 0
    (state / FILE_NAME).write_text('{"version": 1, "engi')
    with keeping(state) as (_, url):
        status, problems = health(url)
        assert status == "degraded"
        assert f"{FILE_NAME} was set aside as {FILE_NAME}.damaged" in problems[0]
    assert sorted(path.name for path in state.glob("engines*")) == [
        f"{FILE_NAME}.damaged",
        f"{FILE_NAME}.lock",
    ]


@pytest.mark.fault("D3")
def test_pipes_in_place_of_files_hold_up_nothing(
    tmp_path: Path, model: Path, seen: Callable[[str], None]
) -> None:
    assert sys.platform != "win32"  # for the type checker
    state = tmp_path / "state"
    keys = KeyFile(tmp_path / "keys.json")
    _, key = keys.create("a", Scope)
    auth = {"authorization": f"Bearer {key}"}
    with keeping(state, keys_file=str(keys.path), model_roots=str(tmp_path)) as (process, url):
        with httpx.Client(base_url=url, headers=auth, timeout=5) as http:
            body = {"engine_id": "one", "model_path": str(model), "load_immediately": False}
            assert http.post("/engines", json=body).status_code == 201
            until((state / FILE_NAME).exists)
            for path in (model, state / FILE_NAME, keys.path):
                path.unlink()
                os.mkfifo(path)
            started = time.monotonic()
            answers = [
                http.post("/v1/completions", json={"model": "one", "prompt": "x"}),
                http.post("/engines", json=body | {"engine_id": "two"}),
                http.post("/api/show", json={"model": "one"}),
                http.get("/api/tags"),
                http.get("/engines/one"),
                http.get("/health"),
            ]
            took_s = time.monotonic() - started
            assert [answer.status_code for answer in answers] == [422, 400, 200, 200, 200, 200]
            until(lambda: http.get("/engines/one").is_success and health(url)[0] == "degraded")
            assert http.get("/engines", headers={"authorization": "Bearer another"}).status_code == 401
            assert took_s < 5
            status, _, stop_s = stop(process)
        assert status == 0
        assert stop_s < 5
    seen(f"6 answers in {took_s:.1f} s, stopped after {stop_s:.1f} s")
    keys.path.unlink()
    with keeping(state) as (process, url):
        assert names(url) == []
        assert health(url)[0] == "degraded"
        assert stop(process)[2] < 5
