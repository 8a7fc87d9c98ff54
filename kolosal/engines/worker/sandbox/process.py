"""A limited process, as the worker sees it: started when it is first needed, ended when it does not answer in time.

What it may cost it is told by its limits; what it does is the business of the module that runs in it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from kolosal.engines.worker.sandbox.limits import OUT_OF_MEMORY, ProcessLimits

if sys.platform == "win32":
    from kolosal.engines.ipc.process_windows import describe_exit, python_program, spawn_options
    from kolosal.engines.worker.sandbox.limits_windows import MAX_WALL_S, OUT_OF_TIME, limit_child
else:
    from kolosal.engines.ipc.process_posix import describe_exit, python_program, spawn_options
    from kolosal.engines.worker.sandbox.limits_posix import MAX_WALL_S, OUT_OF_TIME, limit_child

_MAX_START_S: Final = 20.0
"""Until the process is ready: 50 ms, or as long as a busy disk takes to find Python and what it imports. Pings may wait meanwhile:
with the longest answer it is half of `engines.step_timeout_s`, after which the daemon takes the worker for hung."""


class ProcessFailed(Exception):
    """The process ended instead of answering. The message says why, after “…: ”."""


@dataclass(frozen=True, slots=True)
class ProcessAnswer:
    """What was made of one thing that was asked, or why it was not."""

    text: str = ""
    error: str | None = None


_ANSWERS = TypeAdapter(list[ProcessAnswer])


def command_for(module: str) -> list[str]:
    """Python, without its site packages and without the variables that change it, but with our search path: it starts sooner."""
    script = f"import sys; sys.path += sys.argv[1:]; from {module} import main; main()"
    return [python_program()[0], "-I", "-S", "-c", script, *sys.path]


class LimitedProcess:
    """One process, and a thread that ends it when it is late or idle. Asked by one thread at a time."""

    def __init__(
        self,
        command: Sequence[str],
        limits: ProcessLimits,
        purpose: str,
        *,
        max_wall_s: float | None = None,
        max_idle_s: float | None = None,
    ) -> None:
        """Start it. Returns at once; what it is asked waits until it is ready.

        `purpose`: what it does, for errors; `max_wall_s`: how long an answer may take, where that is
        not the usual; `max_idle_s`: how long it lives unasked.
        """
        # The environment is the worker's, in which there are no keys.
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **spawn_options()
        )
        self._limits, self._purpose = limits, purpose
        self._max_wall_s = MAX_WALL_S if max_wall_s is None else max_wall_s
        self._max_idle_s = max_idle_s
        limit_child(self._child.pid, limits.memory_bytes)
        self._is_ready = self._is_late = False
        self._timeout_s = self._max_wall_s
        self._turn = threading.Lock()  # of the watchdog's last look and the next request
        self._deadline_s: float | None = None
        self._asked_at_s = time.monotonic()
        self._ended = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="limited-watchdog", daemon=True)
        self._watchdog.start()

    @property
    def is_running(self) -> bool:
        """Whether it can be asked something; if it can, it will not end for being idle just then."""
        with self._turn:
            self._asked_at_s = time.monotonic()
            return self._child.poll() is None

    def ask(self, request: dict[str, Any], n_answers: int) -> list[ProcessAnswer]:
        """What it answers.

        Raises:
            ProcessFailed: it ended instead, or talks nonsense and was ended.
            OSError: it did not start.
        """
        if not self._is_ready:
            self._is_ready = bool(self._line(b"", _MAX_START_S))
            if not self._is_ready:
                raise OSError(f"The process that {self._purpose} did not start: {self.end()}")
        line = self._line(json.dumps(request).encode() + b"\n", self._max_wall_s)
        with contextlib.suppress(ValidationError):
            answers = _ANSWERS.validate_json(line, strict=True)
            if len(answers) == n_answers:
                return answers
        raise ProcessFailed(self.end())

    def kill(self) -> None:
        """End what it does, from any thread."""
        self._child.kill()

    def end(self) -> str:
        """End the process if it runs; returns why it ended. Can be called again."""
        self._child.kill()
        self._ended.set()
        self._watchdog.join()
        with contextlib.suppress(OSError), self._child:  # closes its pipes
            pass
        status = self._child.wait()
        if self._is_late:
            return f"it takes more than {self._timeout_s:g} s"
        if status == OUT_OF_TIME:
            return f"it takes more than {self._limits.cpu_s:g} s of processor time"
        if status == OUT_OF_MEMORY:
            return f"it needs more than {self._limits.memory_bytes >> 20} MiB of memory"
        return f"the process that {self._purpose} ended ({describe_exit(status)})"

    def _line(self, request: bytes, timeout_s: float) -> bytes:
        requests, answers = self._child.stdin, self._child.stdout
        assert requests is not None and answers is not None  # noqa: S101, PT018 - spawned with pipes
        with self._turn:
            self._timeout_s, self._deadline_s = timeout_s, time.monotonic() + timeout_s
        try:
            requests.write(request)
            requests.flush()
            return answers.readline(self._limits.answer_bytes)
        except OSError:
            return b""
        finally:
            self._asked_at_s, self._deadline_s = time.monotonic(), None

    def _watch(self) -> None:
        """End the process where its answer is late, or nothing is asked of it any more.

        It looks now and then: to be woken for each request would cost more than most of them.
        """
        while not self._ended.wait(self._max_wall_s / 8):
            with self._turn:
                now_s, deadline_s = time.monotonic(), self._deadline_s
                if deadline_s is not None and now_s > deadline_s:
                    self._is_late = True
                    self._child.kill()
                elif deadline_s is None and self._max_idle_s and now_s > self._asked_at_s + self._max_idle_s:
                    self._child.kill()
                    self._child.wait()
