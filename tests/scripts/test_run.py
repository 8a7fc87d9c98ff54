from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import run
from daemon import Daemon, engine_states, hints, local_url
from environment import Contents

from kolosal.native.processes import exit_code

STUB = """
import argparse, json, signal, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
parser = argparse.ArgumentParser()
parser.add_argument("command"); parser.add_argument("--host"); parser.add_argument("--port", type=int)
parser.add_argument("--model", action="append")
given = parser.parse_args()
name = given.model[0].partition("=")[0]
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        state = {"broken": "failed"}.get(name, "loaded")
        body = json.dumps({"engines": [{"engine_id": name, "status": state}]}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
if name == "dies":
    sys.exit(7)
server = HTTPServer((given.host, given.port), Handler)
def stop(number, frame):
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGINT, signal.SIG_IGN if name == "deaf" else stop)
signal.signal(signal.SIGTERM, stop)
server.serve_forever()
sys.exit(3)
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals to one process are POSIX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    package = tmp_path / "kolosal"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STUB)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def daemon(root: Path, port: int, name: str) -> Daemon:
    return Daemon(Path(sys.executable), root, "127.0.0.1", port, [f"{name}=/m.gguf"])


@posix
def test_ready_daemon_gets_ctrl_c_and_gives_its_exit_code(root: Path, port: int) -> None:
    with daemon(root, port, "good") as child:
        assert child.wait_ready(30)
        os.kill(os.getpid(), signal.SIGINT)
        assert child.wait() == 3


@posix
def test_second_ctrl_c_kills_a_daemon_that_does_not_listen(root: Path, port: int) -> None:
    with daemon(root, port, "deaf") as child:
        assert child.wait_ready(30)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert child.wait() == 128 + signal.SIGKILL


def test_daemon_that_ends_early_is_noticed(root: Path, port: int) -> None:
    with daemon(root, port, "dies") as child:
        assert not child.wait_ready(30)
        assert not child.unready()
        assert child.wait() == 7


def test_model_that_failed_to_load_ends_the_wait_and_leaving_ends_the_daemon(root: Path, port: int) -> None:
    with daemon(root, port, "broken") as child:
        assert not child.wait_ready(30)
        assert child.unready()
    assert child.status is not None


def test_signal_handlers_are_given_back(root: Path, port: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    with daemon(root, port, "dies") as child:
        child.wait()
    assert signal.getsignal(signal.SIGINT) == before
    assert threading.active_count() >= 1


@pytest.mark.parametrize("body", [None, [], 3, "x", {}, {"engines": None}, {"engines": [1, None]}])
def test_unexpected_health_bodies_name_no_engine(body: object) -> None:
    assert engine_states(body) == {}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("box.lan", "http://box.lan:8080"),
    ],
)
def test_address_for_clients_on_this_machine(host: str, url: str) -> None:
    assert local_url(host, 8080) == url


def test_hints_show_three_clients_and_valid_python() -> None:
    text = hints("http://127.0.0.1:8080", "smollm2")
    assert text.count("http://127.0.0.1:8080/v1/chat/completions") == 2
    assert "Invoke-RestMethod" in text
    assert "Ctrl-C stops it" in text
    snippet = text[text.index("  from openai") : text.index("Ctrl-C")]
    ast.parse(re.sub(r"^  ", "", snippet, flags=re.MULTILINE))


@pytest.mark.parametrize("text", ["0", "65536", "-1", "x", "", "8080.0", "²"])
def test_bad_port_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="allowed are 1 to 65535"):
        run.port_number(text)


@pytest.mark.parametrize("text", ["", "name", "=path", "name="])
def test_model_must_be_id_and_path(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not ID=PATH"):
        run.model_argument(text)


def test_model_file_must_exist_and_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(argparse.ArgumentTypeError, match="there is no file"):
        run.model_argument("m=a=b.gguf")
    (tmp_path / "a=b.gguf").touch()
    assert run.model_argument("m=a=b.gguf") == f"m={tmp_path / 'a=b.gguf'}"


def test_given_models_replace_the_embedded_one() -> None:
    found = Contents("3.11", "25.1", "0.3.36", True, "/m.gguf", "0.1.2")
    assert run.served(None, found) == ["smollm2=/m.gguf"]
    assert run.served(["a=/a", "b=/b"], found) == ["a=/a", "b=/b"]


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3, 3), (-2, 130), (-15, 143)])
def test_exit_code_is_what_a_shell_reports(status: int, code: int) -> None:
    assert exit_code(status) == code


@pytest.mark.parametrize("script", ["run.py", "test.py", "native.py"])
def test_help_teaches(script: str) -> None:
    path = Path(run.__file__).parent / script
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "--preset" in done.stdout
    assert "default:" in done.stdout


@pytest.mark.parametrize("script", ["run.py", "native.py"])
def test_unknown_preset_is_one_line_and_status_1(script: str) -> None:
    path = Path(run.__file__).parent / script
    argv = [sys.executable, str(path), "--preset", "nope"] + (
        ["--print-args"] if script == "native.py" else []
    )
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown preset 'nope'. Known presets: cpu, cuda")
    assert done.stderr.count("\n") == 1
