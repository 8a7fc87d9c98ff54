"""The daemon as a process: it says when it listens, drains when told to stop, and leaves nothing behind."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from kolosal.config.settings import Settings
from kolosal.daemon import _say
from tests.e2e.helpers import DEADLINE_S, user_environment
from tests.gguf_files import gguf
from tests.settings import sections

_PROGRAM = """
import os, sys
import orjson
from kolosal.daemon import run
from kolosal.config.settings import Settings
from kolosal.log import configure_logging
from tests.fake_worker import fake_worker_argv
given, faults = orjson.loads(sys.argv[1])
settings = Settings.model_validate_json(orjson.dumps(given))
if "level" in given.get("logging", {}):
    configure_logging(settings.logging)
sys.exit(run(settings, os.environ, fake_worker_argv(*faults)))
"""


@contextlib.contextmanager
def daemon(
    *faults: str, preamble: str = "", **settings: object
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A daemon over fake workers, and its URL. `preamble` is Python that runs first, for constants that no setting has."""
    # a developer's own keys must not count
    own = {"port": 0, "keep_engines": False, "keys_file": "no-such-file", "spare_worker": False}
    arguments = orjson.dumps([sections(**(own | settings)), list(faults)]).decode()
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with (
        tempfile.TemporaryDirectory() as home,  # nor their models
        subprocess.Popen(
            [sys.executable, "-c", preamble + _PROGRAM, arguments],
            env=user_environment(Path(home)),
            cwd=home,
            **options,
        ) as process,  # type: ignore[call-overload]
    ):
        try:
            line = process.stdout.readline()
            assert line.startswith("Kolosal is listening on http"), line + process.stderr.read()
            yield process, line.split()[-1]
        finally:
            process.kill()


def _completion(url: str, number: int) -> int:
    body = {"model": "a", "prompt": f"{number}:", "max_tokens": 100}
    return httpx.post(f"{url}/v1/completions", json=body, timeout=DEADLINE_S).status_code


def wait_for(url: str, status: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while httpx.get(f"{url}/engines").json()["engines"][0]["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def models(tmp_path: Path) -> list[dict[str, object]]:
    (tmp_path / "a.gguf").write_bytes(gguf())
    return [{"id": "a", "path": str(tmp_path / "a.gguf"), "parameters": {"n_ctx": 5000}}]


@pytest.mark.fault("C2")
def test_a_taken_port_is_one_line_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = orjson.dumps([sections(port=port), []]).decode()
        result = subprocess.run(
            [sys.executable, "-c", _PROGRAM, arguments], capture_output=True, text=True, timeout=DEADLINE_S
        )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Cannot listen on http://127.0.0.1:{port}: ")
    assert result.stderr.count("\n") == 1


def test_a_daemon_without_a_console_says_nothing() -> None:
    """As under pythonw on Windows, where the streams are None."""
    said = io.StringIO()
    _say(None, "Kolosal is listening\n")
    _say(said, "Kolosal is listening\n")
    assert said.getvalue() == "Kolosal is listening\n"


def test_a_model_that_does_not_load_is_logged_and_kept(models: list[dict[str, object]]) -> None:
    missing: dict[str, object] = {"id": "b", "path": "/no/such.gguf"}
    with daemon("load_error", models=[*models, missing]) as (process, url):
        deadline = time.monotonic() + DEADLINE_S
        while not all(error := [httpx.get(f"{url}/engines/{name}").json()["last_error"] for name in "ab"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "broken on purpose" in error[0]
        retried = httpx.post(f"{url}/v1/completions", json={"model": "a", "prompt": "x"})
        assert retried.status_code == 422
        process.kill()
        assert process.stderr is not None
        assert "model.not_found" in process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process on Windows")
class TestSignals:
    def test_health_answers_while_models_load_and_stopping_ends_the_load(
        self, models: list[dict[str, object]]
    ) -> None:
        with daemon("load_hang", models=models) as (process, url):
            assert httpx.get(f"{url}/health").json()["node_manager"]["unloaded_engines"] == 1
            assert httpx.get(f"{url}/engines/a/status").json()["status"] == "unloaded"
            [worker] = _workers(process)
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
            assert not worker.is_running()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_running_streams_finish_first(self, models: list[dict[str, object]], number: int) -> None:
        with daemon("step_s=0.005", models=models) as (process, url):
            wait_for(url, "loaded")
            workers = _workers(process)
            body = {"model": "a", "prompt": "1:", "max_tokens": 100, "stream": True}
            with httpx.stream("POST", f"{url}/v1/completions", json=body) as response:
                chunks = response.iter_text()
                first = next(chunks)
                os.kill(process.pid, number)
                text = first + "".join(chunks)
            assert text.endswith("data: [DONE]\n\n")
            assert process.wait(DEADLINE_S) == 0
            assert not any(worker.is_running() for worker in workers)

    @pytest.mark.fault("P9")
    def test_new_requests_are_told_to_come_back_while_running_ones_finish(
        self, models: list[dict[str, object]], seen: Callable[[str], None]
    ) -> None:
        with daemon("step_s=0.01", models=models) as (process, url):
            wait_for(url, "loaded")
            with (
                httpx.stream("GET", f"{url}/v1/events") as following,
                concurrent.futures.ThreadPoolExecutor(16) as pool,
            ):
                events = following.iter_text()
                told = next(events)
                running = [pool.submit(_completion, url, number) for number in range(16)]
                while told.count("request.started") < len(running):
                    told += next(events)
                os.kill(process.pid, signal.SIGTERM)
                refused = wait_until_draining(url)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_shutting_down")
                assert int(refused.headers["retry-after"]) >= 1
                assert httpx.get(f"{url}/health").status_code == 200
                assert [answer.result() for answer in running] == [200] * 16
                told += "".join(events)
            assert '"outcome":"failed"' not in told
            assert process.wait(DEADLINE_S) == 0
            seen("16 of 16 answered, new ones 503, exit 0")

    def test_a_request_that_waits_for_a_load_is_told_to_come_back(
        self, models: list[dict[str, object]]
    ) -> None:
        with (
            daemon("load_hang", models=models, shutdown_drain_s=0.2) as (process, url),
            concurrent.futures.ThreadPoolExecutor(1) as pool,
        ):
            waiting = pool.submit(_completion, url, 1)
            while "kolosal_inference_requests 1.0" not in httpx.get(f"{url}/metrics/prometheus").text:
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGTERM)
            assert waiting.result() == 503
            assert process.wait(DEADLINE_S) == 0

    @pytest.mark.fault("P9")
    def test_streams_that_take_too_long_fail(self, models: list[dict[str, object]]) -> None:
        with daemon("step_s=0.01", models=models, shutdown_drain_s=0.2) as (process, url):
            wait_for(url, "loaded")
            body = {"model": "a", "prompt": "1:", "max_tokens": 4000, "stream": True}
            with httpx.stream("POST", f"{url}/v1/completions", json=body) as response:
                chunks = response.iter_text()
                first = next(chunks)
                os.kill(process.pid, signal.SIGTERM)
                text = first + "".join(chunks)
            assert '"code":"engine_died"' in text
            assert "[DONE]" not in text
            assert process.wait(DEADLINE_S) == 0

    @pytest.mark.fault("P9")
    def test_a_second_signal_ends_it_at_once(
        self, models: list[dict[str, object]], seen: Callable[[str], None]
    ) -> None:
        with daemon("step_s=0.01", models=models) as (process, url):
            wait_for(url, "loaded")
            workers = _workers(process)
            body = {"model": "a", "prompt": "1:", "max_tokens": 4000, "stream": True}
            with httpx.stream("POST", f"{url}/v1/completions", json=body) as response:
                chunks = response.iter_text()  # kept, because dropping it would close the connection
                next(chunks)
                os.kill(process.pid, signal.SIGTERM)
                wait_until_draining(url)
                os.kill(process.pid, signal.SIGINT)
                forced_at = time.monotonic()
                assert process.wait(DEADLINE_S) == 1
                seen(f"the second signal ends it in {time.monotonic() - forced_at:.3f} s")
            _, alive = psutil.wait_procs(workers, timeout=DEADLINE_S)
            assert not alive


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    deadline = time.monotonic() + DEADLINE_S
    while not (children := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return children


def wait_until_draining(url: str) -> httpx.Response:
    """The first answer to a new request that is a refusal."""
    deadline = time.monotonic() + DEADLINE_S
    while (
        answer := httpx.post(f"{url}/v1/completions", json={"model": "b", "prompt": "x"})
    ).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def test_urls_of_addresses() -> None:
    assert Settings().server.url_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert Settings().server.url_of("::1", 80) == "http://[::1]:80"
