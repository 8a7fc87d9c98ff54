"""The daemon as run.py's child: start it, see it become ready, pass stop signals on, give its exit code.

Ready is asked of the daemon itself (GET /v1/health), never guessed from its output.
"""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from typing import TYPE_CHECKING

import checkout  # noqa: F401 - makes the next ones importable

from kolosal.native.processes import ask_to_stop, exit_code, kill_tree, spawn_foreground

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

READY_S = 600.0  # bounds the wait for the first load: a large model on a slow disk
POLL_S = 0.2  # between two looks at the daemon
HEALTH_S = 5.0  # bounds one GET /v1/health
STOP_S = 60.0  # a daemon that was asked to stop and has not is killed after this

_HINTS = """
Kolosal is ready on {url}. Try:

  curl {url}/v1/chat/completions -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "temperature": 0, "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'

  PowerShell:
  Invoke-RestMethod {url}/v1/chat/completions -Method Post -ContentType application/json `
    -Body '{{"model": "{model}", "temperature": 0, "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'

  Python (pip install openai):
  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  answer = client.chat.completions.create(
      model="{model}", temperature=0, messages=[{{"role": "user", "content": "Why is the sky blue?"}}]
  )
  print(answer.choices[0].message.content)

Ctrl-C stops it.
"""


def hints(url: str, model: str) -> str:
    return _HINTS.format(url=url, model=model)


def local_url(host: str, port: int) -> str:
    """Where a client on this machine reaches a daemon that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def engine_states(health: object) -> dict[str, str]:
    """Engine id -> status from a /v1/health body; an unexpected shape gives nothing."""
    engines = health.get("engines") if isinstance(health, dict) else None
    if not isinstance(engines, list):
        return {}
    return {
        str(engine.get("engine_id")): str(engine.get("status"))
        for engine in engines
        if isinstance(engine, dict)
    }


class Daemon:
    """Entering starts the child and takes over SIGINT, SIGTERM and SIGHUP; leaving never leaves the child behind.

    The first stop signal asks the daemon to stop, the second one kills it.
    """

    def __init__(self, python: Path, root: Path, host: str, port: int, models: list[str]) -> None:
        self.url = local_url(host, port)
        self.names = [model.partition("=")[0] for model in models]
        self._argv = [str(python), "-m", "kolosal", "serve", "--host", host, "--port", str(port)]
        for model in models:
            self._argv += ["--model", model]
        self._root = root
        self._stop_by: float | None = None

    def __enter__(self) -> Daemon:
        self._child = spawn_foreground(self._argv, self._root)
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        signals = [getattr(signal, name) for name in names if hasattr(signal, name)]
        self._previous = {number: signal.signal(number, self._on_signal) for number in signals}
        return self

    def __exit__(self, *exc: object) -> None:
        if self.status is None:
            kill_tree(self._child)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def status(self) -> int | None:
        return self._child.poll()

    def wait_ready(self, limit_s: float = READY_S) -> bool:
        """False when the daemon ended, was told to stop, or a model failed to load or took too long."""
        deadline = time.monotonic() + limit_s
        while self.unready() and time.monotonic() < deadline:
            states = self._states()
            mine = [states.get(name) for name in self.names]
            if all(state == "loaded" for state in mine):
                return True
            if "failed" in mine:
                return False
            time.sleep(POLL_S)
        return False

    def unready(self) -> bool:
        """Still running and nobody asked it to stop."""
        return self.status is None and self._stop_by is None

    def wait(self) -> int:
        while self.status is None:
            if self._stop_by is not None and time.monotonic() > self._stop_by:
                kill_tree(self._child)
            time.sleep(POLL_S)
        return exit_code(self._child.returncode)

    def _states(self) -> dict[str, str]:
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({})
        )  # a proxy cannot reach this machine
        try:
            with opener.open(f"{self.url}/v1/health", timeout=HEALTH_S) as answer:
                return engine_states(json.load(answer))
        except (OSError, ValueError):
            return {}

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if self._stop_by is None:
            self._stop_by = time.monotonic() + STOP_S
            ask_to_stop(self._child, signum)
        else:
            kill_tree(self._child)
