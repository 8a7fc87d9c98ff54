"""What systemd is told, by its own socket, from a daemon that starts, lives and stops."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kolosal.sd_notify import watchdog_interval_s
from tests.http.test_daemon import daemon

if sys.platform == "win32":
    pytest.skip("systemd is Linux's", allow_module_level=True)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """systemd's end, whose watchdog wants to be told ten times a second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        yield end


def test_a_daemon_says_when_it_listens_that_it_lives_and_that_it_stops(manager: socket.socket) -> None:
    with daemon(shutdown_drain_s=2.5) as (process, url):
        heard = [manager.recv(4096).decode() for _ in range(4)]
        process.send_signal(signal.SIGTERM)
        while (last := manager.recv(4096).decode()) == "WATCHDOG=1":
            pass
        assert process.wait(30) == 0
    assert f"READY=1\nSTATUS=Listening on {url}" in heard
    assert heard.count("WATCHDOG=1") == 3
    assert last == "STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000"


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_a_watchdog_is_told_twice_in_its_patience(environ: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environ, os.getpid()) == interval_s
