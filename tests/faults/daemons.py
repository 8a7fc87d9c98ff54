"""A daemon whose workers are what the test wants, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import orjson
import psutil

from tests.settings import sections

_PROGRAM = """
import os, sys
import orjson
from kolosal.config.settings import Settings
from kolosal.daemon import run
settings, worker = orjson.loads(sys.argv[1])
sys.exit(run(Settings.model_validate_json(orjson.dumps(settings)), os.environ, tuple(worker)))
"""

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class FakeDaemon:
    """A running one."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def states(self) -> dict[str, str]:
        """Engine → what it does."""
        with httpx.Client(base_url=self.url) as http:
            names = [one["engine_id"] for one in http.get("/engines").json()["engines"]]
            return {name: http.get(f"/engines/{name}").json()["state"] for name in names}

    def workers(self, count: int) -> list[psutil.Process]:
        """Its children, once there are so many."""
        deadline = time.monotonic() + _DEADLINE_S
        while len(children := psutil.Process(self.process.pid).children()) < count:
            assert time.monotonic() < deadline, f"{len(children)} workers"
            time.sleep(0.02)
        return children

    def until(self, **states: str) -> None:
        """Wait until engines are in these states."""
        deadline = time.monotonic() + _DEADLINE_S
        while not states.items() <= (now := self.states()).items():
            assert time.monotonic() < deadline, now
            time.sleep(0.02)


@contextlib.contextmanager
def fake_daemon(worker: Sequence[str], **settings: object) -> Iterator[FakeDaemon]:
    """Starts a daemon with these workers, which listens; killed at the end, if it is still there."""
    own = {"port": 0, "keep_engines": False, "keys_file": "no-such-file", "spare_worker": False}
    arguments = orjson.dumps([sections(**(own | settings)), list(worker)]).decode()
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line.startswith("Kolosal is listening on http"), line + process.stderr.read()
            yield FakeDaemon(process, line.split()[-1])
        finally:
            process.kill()
