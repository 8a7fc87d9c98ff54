"""A stub daemon, and a command line that sees nothing of this machine's configuration."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kolosal.cli import app
from tests.commands.stub_daemon import StubDaemon


class Result:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory and home, and no setting in the environment."""
    for name in [name for name in os.environ if name.startswith("KOLOSAL_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stub() -> Iterator[StubDaemon]:
    """A running stub daemon."""
    server = StubDaemon()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cli() -> Cli:
    """Runs the command line in this process: `cli("ps", "--json", input="")`."""

    def run(*arguments: str, input: str | None = None) -> Result:  # noqa: A002 - as CliRunner calls it
        done = CliRunner().invoke(app, arguments, input=input)
        unexpected = done.exception is not None and not isinstance(done.exception, SystemExit)
        assert not unexpected, f"a traceback for the user: {done.exception!r}"
        return Result(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
