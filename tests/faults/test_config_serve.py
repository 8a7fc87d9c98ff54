"""C1, C2: `kolosal serve` where it cannot start, and workers that cannot: one line each, which names what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.errors import EngineDied, KolosalError, LoadFailed
from tests.e2e.helpers import user_environment
from tests.engines.helpers import loaded
from tests.engines.worker.helpers import ask
from tests.faults.drivers import killed_while_answering
from tests.faults.sockets import port_of
from tests.http.test_daemon import daemon
from tests.settings import with_settings
from tests.tiny_gguf import write_tiny_gguf

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]
FakeWorker = Callable[..., WorkerCommand]

MAX_CPU_S = 1.0


def serve(folder: Path, *arguments: str, **environ: str) -> tuple[int, str, str, float]:
    """The command's status, what it said on stdout and stderr, and the seconds of processor time it took."""
    process = psutil.Popen(
        [sys.executable, "-m", "kolosal", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env=user_environment(folder) | environ,
    )  # fmt: skip
    before = cpu_of_children()
    out, err = process.communicate(timeout=30)
    return process.returncode, out.decode(), err.decode(), cpu_of_children() - before


def cpu_of_children() -> float:
    """Seconds that children took which have ended."""
    times = os.times()
    return times.children_user + times.children_system


BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "an unknown key": ("server:\n  prot: 1", ":2: server.prot: unknown key"),
    "no UTF-8": (b"a: \x80", ": not valid YAML"),
    "too deep": ("[" * 20_000, ": nested too deeply"),
    "too long": (b"#" * 2_000_000, ": longer than 1048576 bytes"),
}
"""One of each kind, as the command says it: all others are in tests/config/test_errors.py."""


@pytest.mark.fault("C1")
@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_cannot_be_used_is_named_with_its_key(
    tmp_path: Path, what: str, sized: Sized, seen: Seen
) -> None:
    text, expected = BAD_FILES[what]
    file = tmp_path / "test.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    status, out, err, cpu_s = serve(tmp_path, "--config", str(file))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"Error: {file}{expected}")
    assert cpu_s < sized(5, 1) * MAX_CPU_S
    seen(f"{cpu_s:.2f} s")


@pytest.mark.fault("C1")
def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "test.yaml").write_bytes(b"\xef\xbb\xbfserver:\n  prot: 1")
    status, _, err, _ = serve(tmp_path, "--config", "test.yaml")
    assert (status, ":2: server.prot: unknown key" in err) == (2, True)


@pytest.mark.fault("C1")
@pytest.mark.parametrize(("environ", "expected"), [
    ({"KOLOSAL_PROT": "1"}, "KOLOSAL_PROT (environment): unknown variable"),
    ({"KOLOSAL_API_KEY": "my-secret"}, "KOLOSAL_API_KEY (environment): must be text of 16"),
    ({"KOLOSAL_API_KEY_FILE": "no-such-file"}, "auth.api_key_file: "),
    ({"KOLOSAL_LOG_FILE": "no-such-folder/a.log"}, "no-such-folder"),
])  # fmt: skip
def test_a_variable_that_cannot_be_used_is_named(
    tmp_path: Path, environ: dict[str, str], expected: str, sized: Sized
) -> None:
    status, out, err, cpu_s = serve(tmp_path, **environ)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert expected in err
    assert "my-secret" not in err
    assert cpu_s < sized(10, 2) * MAX_CPU_S  # some are found out when the server's code has been loaded


@pytest.mark.fault("C1")
def test_a_file_and_a_variable_that_disagree_are_no_fault(tmp_path: Path) -> None:
    """The variable wins, and what is wrong in it is told with its own name."""
    (tmp_path / "config.yaml").write_text("server: {host: 127.0.0.1}\nlogging: {level: info}")
    status, _, err, _ = serve(tmp_path, KOLOSAL_LOG_LEVEL="loud")
    assert (status, "KOLOSAL_LOG_LEVEL (environment)" in err) == (2, True)


@pytest.mark.fault("C1")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_the_right_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "test.yaml").touch(mode=0o000)
    status, _, err, _ = serve(tmp_path, "--config", "test.yaml")
    assert (status, "Permission denied" in err) == (2, True)


@pytest.mark.fault("C2")
@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"], ids=["taken", "not of this machine"])
def test_an_address_that_cannot_be_had_is_one_line(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, out, err, _ = serve(
            tmp_path, "--port", port, "--host", host, KOLOSAL_API_KEY="a-key-of-16-letters"
        )
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith(f"Cannot listen on http://{host}:{port}: ")


@pytest.mark.fault("C2")
@pytest.mark.parametrize(("module", "words"), [
    ("raise OSError('libllama.so: cannot open shared object file: No such file or directory')", "libllama.so"),
    ("raise ImportError('libcuda.so.1: cannot open shared object file')", "libcuda.so.1"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL"),
], ids=["no native library", "no driver", "SIGILL"])  # fmt: skip
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
async def test_a_worker_that_cannot_start_says_which_library_or_signal(
    tmp_path: Path, tiny_gguf: Path, module: str, words: str, seen: Seen
) -> None:
    """A package of that name comes before the real one."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").touch()
    (tmp_path / "llama_cpp" / "llama_cpp.py").write_text(module)
    root = str(Path(__file__).parents[2])
    command = WorkerCommand(
        (sys.executable, "-m", "kolosal.engines.worker"),
        user_environment(tmp_path) | {"PYTHONPATH": os.pathsep.join((str(tmp_path), root))},
        restart_delays_s=(0.0,),
    )
    config = EngineConfig("x", str(tiny_gguf), LoadingParameters(n_threads=1))
    with pytest.raises((LoadFailed, EngineDied)) as raised:
        async with loaded(command, config):
            pass
    assert words in raised.value.message
    seen(raised.value.message[:120])


@pytest.mark.fault("C2")
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
async def test_a_worker_that_dies_of_an_illegal_instruction_takes_nobody_along(
    fake_worker: FakeWorker,
) -> None:
    async with (
        loaded(with_settings(fake_worker("step_s=0.005"), max_crashes=1)) as doomed,
        loaded(fake_worker()) as living,
    ):
        pid = living.worker_pid
        [end] = await killed_while_answering(doomed, [ask("1:", max_tokens=50)], how=signal.SIGILL)
        assert isinstance(end, KolosalError)
        assert "killed by SIGILL" in end.message
        assert (await living.generate(ask("1:", max_tokens=3)).collect()).text
        assert living.worker_pid == pid


@pytest.mark.fault("C2")
def test_the_daemon_serves_on_where_no_model_can_be_loaded(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "a.gguf")
    model = {"id": "a", "path": str(tmp_path / "a.gguf")}
    with daemon("load_crash", models=[model], access_log=False) as (_, url):
        assert port_of(url)
        deadline = time.monotonic() + 20
        while not (error := httpx.get(f"{url}/engines/a").json()["last_error"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "\n" not in error.strip().splitlines()[0]
        assert httpx.get(f"{url}/health").status_code == 200
