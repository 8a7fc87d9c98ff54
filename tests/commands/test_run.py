"""`kolosal run` against a stub daemon, and with a stub daemon that it starts itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kolosal.commands import child_daemon
from kolosal.commands.address import Address
from kolosal.commands.chat import Terminal
from kolosal.commands.child_daemon import ChildSpec
from kolosal.commands.errors import CommandError
from kolosal.commands.run import RunRequest, run
from kolosal.config.load import load_settings
from tests.commands.conftest import Cli
from tests.commands.stub_daemon import StubDaemon
from tests.e2e.helpers import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def stub_with_engine(stub: StubDaemon, tmp_path: Path) -> StubDaemon:
    stub.engines = {"tiny": {"model_path": str(tmp_path / "tiny.gguf")}}
    return stub


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Tests that a shell runs in the background ignore SIGINT, and what they start would, too."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_a_prompt_is_answered_once(cli: Cli, stub_with_engine: StubDaemon) -> None:
    options = ["--system", "be brief", "--temperature", "0", "--max-tokens", "5"]
    done = cli("run", "tiny", "Hello?", *options, "--url", stub_with_engine.url)
    assert (done.code, done.out) == (0, "Hi\n")
    (body,) = stub_with_engine.bodies("POST", "/v1/chat/completions")
    assert body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Hello?"}],
        "stream": True,
        "temperature": 0,
        "max_tokens": 5,
    }


def test_piped_text_is_the_prompt(cli: Cli, stub_with_engine: StubDaemon) -> None:
    assert cli("run", "tiny", "--url", stub_with_engine.url, input="Hello?\n").out == "Hi\n"


def test_an_empty_pipe_is_refused(cli: Cli, stub_with_engine: StubDaemon) -> None:
    assert cli("run", "tiny", "--url", stub_with_engine.url, input=" \n").code == 1


def test_a_file_is_loaded_under_its_stem(cli: Cli, stub: StubDaemon, tmp_path: Path) -> None:
    assert cli("run", "Some#model.GGUF", "Hello?", "--url", stub.url).code == 0
    expected = {"engine_id": "Some-model", "model_path": str(tmp_path / "Some#model.GGUF")}
    assert stub.bodies("POST", "/engines") == [expected]


def test_a_file_that_is_loaded_is_not_loaded_again(cli: Cli, stub_with_engine: StubDaemon) -> None:
    assert cli("run", "./x/../tiny.gguf", "Hello?", "--url", stub_with_engine.url).code == 0
    assert stub_with_engine.bodies("POST", "/engines") == []


def test_a_file_whose_name_is_taken_is_not_mixed_up(cli: Cli, stub_with_engine: StubDaemon) -> None:
    done = cli("run", "other/tiny.gguf", "Hello?", "--url", stub_with_engine.url)
    assert done.code == 1
    assert "holds another file" in done.err


def test_an_unknown_id_names_those_there_are(cli: Cli, stub_with_engine: StubDaemon) -> None:
    done = cli("run", "tony", "Hello?", "--url", stub_with_engine.url)
    assert (done.code, "tiny" in done.err) == (1, True)


def test_an_answer_that_fails_is_an_error(cli: Cli, stub_with_engine: StubDaemon) -> None:
    stub_with_engine.events = [
        '{"choices": [{"delta": {"content": "so"}}]}',
        '{"error": {"message": "worker died"}}',
    ]
    done = cli("run", "tiny", "Hello?", "--url", stub_with_engine.url)
    assert (done.code, done.out, done.err) == (1, "so", "Error: worker died\n")


# --- a daemon of its own ---


def ask(spec: ChildSpec, port: int, heard: list[str]) -> None:
    request = RunRequest("tiny.gguf", "Hello?", None, {})
    terminal = Terminal(input, heard.append, heard.append)
    run(request, Address(f"http://127.0.0.1:{port}"), spec, terminal)


def stub_spec(port: int, engines: int = 0) -> ChildSpec:
    return ChildSpec(
        (sys.executable, str(ROOT / "tests" / "commands" / "stub_daemon.py"), "--port", str(port)), engines
    )


def logs(folder: Path) -> list[Path]:
    return [*folder.glob("kolosal-*.log")]


@pytest.fixture
def log_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_daemon_is_started_and_stopped(free_port: int, log_folder: Path) -> None:
    heard: list[str] = []
    ask(stub_spec(free_port), free_port, heard)
    assert heard == ["Hi", "\n"]
    assert logs(log_folder) == []  # and the fixture sees that no process is left


def test_a_daemon_that_cannot_be_told_to_stop_is_ended(
    free_port: int, log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows without a console. The fixture sees that no process is left."""

    send = subprocess.Popen.send_signal

    def refuse(process: subprocess.Popen[bytes], number: int) -> None:
        if number == child_daemon._STOP:
            raise OSError(6, "there is no console")
        send(process, number)  # `kill` comes this way too

    monkeypatch.setattr(subprocess.Popen, "send_signal", refuse)
    ask(stub_spec(free_port), free_port, [])
    assert logs(log_folder) == []


def test_a_daemon_that_cannot_start_shows_its_log(free_port: int, log_folder: Path) -> None:
    spec = ChildSpec((sys.executable, "-c", "import sys; sys.exit('no such luck')"))
    with pytest.raises(CommandError, match="no such luck") as raised:
        ask(spec, free_port, [])
    assert str(logs(log_folder)[0]) in str(raised.value)


def test_a_daemon_that_dies_meanwhile_shows_its_log(free_port: int, log_folder: Path) -> None:
    spec = stub_spec(free_port)
    with pytest.raises(CommandError, match=r"ended before it was told to \(out of luck\)") as raised:
        ask(ChildSpec((*spec.argv, "--die")), free_port, [])
    assert str(logs(log_folder)[0]) in str(raised.value)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to another process")
def test_ctrl_c_does_not_wait_for_a_daemon_that_stops(log_folder: Path, default_interrupt: None) -> None:
    """The fixture sees that no process is left."""
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGINT))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    with child_daemon.child_daemon(ChildSpec((sys.executable, "-c", code))) as child:
        wait_until(lambda: child.log.read_text() == "ready\n")
    assert child.has_ended


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to another process")
def test_ctrl_c_while_a_daemon_is_started_leaves_none(
    free_port: int, log_folder: Path, default_interrupt: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def interrupted(*arguments: object, **options: object) -> object:
        process = start(*arguments, **options)  # type: ignore[call-overload]
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(stub_spec(free_port), free_port, [])


def test_a_program_that_is_not_there_is_a_client_error(free_port: int, log_folder: Path) -> None:
    with pytest.raises(CommandError, match="could not be started"):
        ask(ChildSpec((str(log_folder / "nothing"),)), free_port, [])


def test_the_child_serves_with_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("server: {port: 9000}\nmodels: [{id: a, path: a.gguf}]\n", encoding="utf-8")
    spec = ChildSpec.of(load_settings(environ={}))
    assert spec.argv[1:] == (
        "-m",
        "kolosal",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        "9000",
        "--config",
        str(file),
    )
    assert spec.engines == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to another process")
def test_ctrl_c_stops_the_answer_and_hangs_up(stub_with_engine: StubDaemon, default_interrupt: None) -> None:
    stub_with_engine.hold = threading.Event()
    command = [sys.executable, "-m", "kolosal", "run", "tiny", "Hello?", "--url", stub_with_engine.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"Hi"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert stub_with_engine.client_left.wait(30)


@pytest.mark.parametrize("where", ["kolosal.cli", "kolosal.commands.errors"])
def test_ctrl_c_before_a_command_runs_is_no_traceback(where: str) -> None:
    code = (
        "import sys, kolosal.__main__\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        f"        if name == {where!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder)\n"
        "kolosal.__main__.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_ctrl_c_in_a_callback_is_not_lost(default_interrupt: None) -> None:
    code = (
        "import sys, time, kolosal.__main__\n"
        "class Callback:\n"
        "    def __del__(self): raise KeyboardInterrupt\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'kolosal.commands.address':\n"
        "            Callback()\n"
        "            while True: time.sleep(0.01)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "sys.argv = ['kolosal', 'ps']\n"
        "kolosal.__main__.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False, timeout=50
    )
    assert (done.returncode, done.stderr) == (130, b"")
