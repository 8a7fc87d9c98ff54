"""The daemon as a process, and what it lets out and in: secrets, TLS, big bodies, rights of its workers."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.helpers import DEADLINE_S, user_environment
from tests.http.test_daemon import daemon
from tests.tiny_gguf import write_tiny_gguf

TLS = Path(__file__).parents[1] / "tls"
KEY, WRONG, PROMPT = "planted-key-0123456789", "planted-wrong-0123456789", "planted prompt of a user"
BEARER = {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def models(tmp_path: Path) -> list[dict[str, object]]:
    write_tiny_gguf(tmp_path / "a.gguf")
    return [{"id": "a", "path": str(tmp_path / "a.gguf"), "parameters": {"n_ctx": 5000}}]


def ask(http: httpx.Client, **fields: object) -> httpx.Response:
    return http.post("/v1/completions", json={"model": "a", "prompt": PROMPT, "max_tokens": 3, **fields})


@pytest.mark.fault("A6")
def test_keys_and_prompts_are_nowhere(models: list[dict[str, object]]) -> None:
    with daemon(models=models, api_key=KEY, log_level="debug") as (process, url):
        told = ""
        with httpx.Client(base_url=url, headers=BEARER) as http:
            assert ask(http).status_code == 200
            answers = [
                ask(http, temperature=PROMPT), ask(http, model="b"), ask(http, prompt=PROMPT * 10_000),
                http.post("/v1/completions", content=f"{{{PROMPT}"), http.get("/nowhere"), http.get("/metrics"),
                http.get("/engines/a"), http.get("/health"), http.get(f"/v1/models?x_api_key={KEY}"),
            ]  # fmt: skip
            answers += [ask(http, stream=True), http.get("/v1/models", headers={"x-api-key": WRONG})]
            told += "".join(answer.text for answer in answers[1:])
        refused = httpx.get(f"{url}/v1/models", headers={"x-api-key": WRONG})
        assert refused.status_code == 401
        told += refused.text
        [worker] = psutil.Process(process.pid).children()
        told += str(worker.environ()) + str(worker.cmdline())
        process.kill()
        assert process.stderr is not None
        log = process.stderr.read()
    assert "request.finished" in log
    assert "KOLOSAL" not in told
    for secret in (KEY, WRONG, PROMPT):
        assert secret not in told
        assert secret not in log


@pytest.mark.skipif(sys.platform != "linux", reason="what /proc tells")
def test_a_worker_has_given_up_its_rights(models: list[dict[str, object]]) -> None:
    with daemon(models=models) as (process, url):
        assert httpx.post(f"{url}/v1/completions", json={"model": "a", "prompt": "1"}).status_code == 200
        [worker] = psutil.Process(process.pid).children()
        assert "NoNewPrivs:\t1" in Path(f"/proc/{worker.pid}/status").read_text()
        assert psutil.Process(worker.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
        process.kill()
        _wait_for_end_of(worker)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word to children is Linux's own")
def test_a_worker_that_hangs_in_its_load_ends_with_the_daemon(models: list[dict[str, object]]) -> None:
    with daemon("load_hang", models=models) as (process, _):
        deadline = time.monotonic() + DEADLINE_S
        while not (workers := psutil.Process(process.pid).children()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        _wait_for_end_of(*workers)


def _wait_for_end_of(*processes: psutil.Process) -> None:
    """Nobody may be there to collect the orphans of a daemon that was killed."""
    deadline = time.monotonic() + DEADLINE_S
    for process in processes:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1000)
    except ConnectionError:  # the server closed before it had read all
        return b""


def test_tls(models: list[dict[str, object]]) -> None:
    files = {"tls_certificate": str(TLS / "certificate.pem"), "tls_key": str(TLS / "key.pem")}
    trust = ssl.create_default_context(cafile=files["tls_certificate"])
    with daemon(api_key=KEY, **files) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        with httpx.Client(base_url=url, verify=trust, headers=BEARER) as http:
            assert http.get("/v1/models").json()["data"] == []
        with pytest.raises(httpx.ConnectError, match="verify failed"):
            httpx.get(f"{url}/health")
        old = ssl.create_default_context(cafile=files["tls_certificate"])
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health", verify=old)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url.replace('https', 'http')}/health")


@pytest.mark.parametrize("trusted", [["127.0.0.1"], ["127.0.0.0/8"], []])
def test_clients_behind_a_trusted_proxy_are_told_apart(trusted: list[str]) -> None:
    with daemon(api_key=KEY, lockout_failures=1, trusted_proxies=trusted) as (_, url):

        def status(client: str) -> int:
            headers = {"x-api-key": WRONG, "x-forwarded-for": client}
            return httpx.get(f"{url}/v1/models", headers=headers).status_code

        assert [status("192.0.2.1"), status("192.0.2.1")] == [401, 429]
        assert status("192.0.2.2") == (401 if trusted else 429)


@pytest.mark.fault("H6")
def test_a_body_that_is_announced_too_long_is_refused_unread() -> None:
    with daemon(max_body_bytes=2048) as (process, url):
        before = psutil.Process(process.pid).memory_info().rss
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 104857600\r\n\r\n"
            connection.sendall(head + b"x" * 65_536)
            assert connection.recv(1000).startswith(b"HTTP/1.1 413")
        packed = httpx.post(f"{url}/v1/completions", content=b"x", headers={"content-encoding": "gzip"})
        assert packed.status_code == 415
        for lie in (b"content-length: 10\r\n\r\n{", b"content-length: 2\r\n\r\n{}GARBAGE\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n" + lie)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1000)[:10] in (b"HTTP/1.1 4", b"")
        for headers in (b"a: b\r\n" * 10_000, b"a" * 70_000 + b": b\r\n", b"a: " + b"b" * 70_000 + b"\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n")
                assert _received(connection)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"")
        assert psutil.Process(process.pid).memory_info().rss - before < 20 * 1024 * 1024
        assert httpx.get(f"{url}/health").status_code == 200


class TestServe:
    """The command as a user gives it."""

    @staticmethod
    def refusal(tmp_path: Path, *arguments: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "kolosal", "serve", "--port", "0", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=user_environment(tmp_path) | environ,
            timeout=DEADLINE_S,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        return done.stderr

    def test_it_does_not_let_other_machines_in_without_a_key(self, tmp_path: Path) -> None:
        assert "there is no API key" in self.refusal(tmp_path, "--host", "0.0.0.0")

    def test_a_certificate_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        files = {"KOLOSAL_TLS_CERTIFICATE": "no-such.pem", "KOLOSAL_TLS_KEY": "no-such.pem"}
        assert "server.tls_certificate: no-such.pem" in self.refusal(tmp_path, **files)

    @pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process on Windows")
    def test_a_key_that_is_made_while_it_runs_closes_it_at_once(self, tmp_path: Path) -> None:
        environ = user_environment(tmp_path) | {"KOLOSAL_STATE_DIR": str(tmp_path)}
        with daemon(state_dir=str(tmp_path), keys_file=None) as (_, url):
            assert httpx.get(f"{url}/v1/models").status_code == 200
            made = subprocess.run(
                [sys.executable, "-m", "kolosal", "keys", "create", "first"],
                capture_output=True,
                text=True,
                env=environ,
                cwd=tmp_path,
                check=True,
            )
            assert httpx.get(f"{url}/v1/models").status_code == 401
            headers = {"x-api-key": made.stdout.strip()}
            assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
