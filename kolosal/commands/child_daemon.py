"""A daemon for the length of one `kolosal run`: start it, wait until it answers, stop it at the end.

Owns the child process and its log file. The child has a process group of its own, because Ctrl-C in the terminal is
meant for the answer, not for the daemon.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import CommandError, DaemonUnreachable
from kolosal.config.load import Configuration, process_environment
from kolosal.files.regular import open_regular

START_TIMEOUT_S = 60.0
"""Until the child is ready; it listens before it loads models, so this is little more than import time."""
STOP_TIMEOUT_S = 60.0
"""Until the child has ended by itself after it was told to; it first lets answers finish."""
DEATH_NOTICE_S = 0.5
"""Between a dying process's last broken connection and its exit status."""
LOOK_INTERVAL_S = 0.1
"""Between two attempts to reach the child."""
LAST_WORDS_CHARS = 300
"""How much of the log's last line a message repeats."""

_READ_BYTES = 64 * 1024
"""How much of the log's end is looked at."""

_FOR_A_WHILE = {"KOLOSAL_KEEP_ENGINES": "false"}
"""What one conversation loads is not there again when the next daemon starts."""

if sys.platform == "win32":
    _FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP
    _STOP = signal.CTRL_BREAK_EVENT
    _OUR_END = (signal.SIGTERM,)
else:
    _FLAGS = 0
    _STOP = signal.SIGTERM
    _OUR_END = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start a daemon, and what it has when it is ready."""

    argv: tuple[str, ...]
    engines: int = 0
    """How many engines its configuration names."""

    @classmethod
    def of(cls, configuration: Configuration) -> ChildSpec:
        """`kolosal serve` with the same file, at the same address."""
        settings = configuration.settings
        config = () if configuration.file is None else ("--config", str(configuration.file))
        address = ("--host", settings.server.host, "--port", str(settings.server.port))
        return cls((sys.executable, "-m", "kolosal", "serve", *address, *config), len(settings.models))


@contextmanager
def child_daemon(spec: ChildSpec) -> Iterator[ChildDaemon]:
    """A running child, which has ended when the block has, also where Ctrl-C comes while it is started or stopped. The log is kept when the child failed."""
    previous = [(number, signal.signal(number, _end)) for number in _OUR_END]
    child: ChildDaemon | None = None
    try:
        with _interrupt_deferred():
            child = ChildDaemon(spec)
        yield child
    finally:
        if child is not None:
            child.stop()
        for number, handler in previous:
            signal.signal(number, handler)


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Ctrl-C waits for the end of the block: in the middle of starting a process it would leave one that nobody knows."""
    asked = False

    def remember(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    handler = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if asked:
        signal.raise_signal(signal.SIGINT)


class ChildDaemon:
    """A daemon process. `stop` is idempotent."""

    def __init__(self, spec: ChildSpec) -> None:
        self._engines = spec.engines
        self._keep_log = False
        with tempfile.NamedTemporaryFile(prefix="kolosal-", suffix=".log", delete=False) as log:
            self.log = Path(log.name)
            try:
                self._process = subprocess.Popen(
                    spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=process_environment() | _FOR_A_WHILE,
                    creationflags=_FLAGS,
                    start_new_session=sys.platform != "win32",
                )
            except OSError as exc:
                raise CommandError(f"The daemon could not be started: {exc.strerror}") from exc

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def is_dying(self) -> bool:
        """Whether it has ended, or does so in a moment: its connections break a little earlier. Blocks."""
        try:
            self._process.wait(DEATH_NOTICE_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    async def wait_until_ready(self, client: DaemonClient) -> None:
        """Return when the child answers and knows its configured engines; it loads them later.

        Raises:
            CommandError: it ended, or did not get so far in time. The message names the log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._is_ready(client):
            if self.has_ended:
                raise self.failure("stopped while it was starting")
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready within {START_TIMEOUT_S:g} seconds")
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _is_ready(self, client: DaemonClient) -> bool:
        try:
            engines = (await client.health()).get("engines")
        except DaemonUnreachable:
            return False
        return isinstance(engines, list) and len(engines) >= self._engines

    def stop(self) -> None:
        """Let it finish, then insist, at once after Ctrl-C. The log is kept when there is something in it to find out."""
        try:
            self._ask_to_stop()
            self._process.wait(STOP_TIMEOUT_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
        if not self._keep_log:
            self.log.unlink(missing_ok=True)

    def _ask_to_stop(self) -> None:
        if self.has_ended:
            self._keep_log = True  # it ended before it was told to
            return
        try:
            self._process.send_signal(_STOP)
        except OSError:  # on Windows a console passes it on; a service or a scheduled task has none
            self._process.kill()

    def failure(self, what: str) -> CommandError:
        """What the child did, with its last words and where the others are."""
        self._keep_log = True
        last = _end_of(self.log).strip().rpartition("\n")[2][:LAST_WORDS_CHARS]
        return CommandError(f"The daemon {what}{f' ({last})' if last else ''}. Its log: {self.log}")


def _end_of(log: Path) -> str:
    """The last kilobytes of a log; empty where it is gone."""
    try:
        with open_regular(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _READ_BYTES))
            return file.read(_READ_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """A closed terminal or a SIGTERM must end the child too, so it unwinds like any other end."""
    del frame
    sys.exit(128 + number)
