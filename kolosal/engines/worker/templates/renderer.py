"""The process that renders chat templates, as the worker sees it.

It is started when it is first needed, ended when it does not answer in time, and started anew for the next template or request.
What a template can do in it is `jinja.py`'s business.
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

from kolosal.engines.worker.templates import limits

if sys.platform == "win32":
    from kolosal.engines.ipc.process_windows import describe_exit, python_program, spawn_options
    from kolosal.engines.worker.templates.limits_windows import MAX_WALL_S, OUT_OF_TIME, limit_child
else:
    from kolosal.engines.ipc.process_posix import describe_exit, python_program, spawn_options
    from kolosal.engines.worker.templates.limits_posix import MAX_WALL_S, OUT_OF_TIME, limit_child

_MAX_START_S: Final = 20.0
"""Until the process is ready: 50 ms, or as long as a busy disk takes to find Python and Jinja. Pings wait meanwhile: with the longest
answer it is half of `engines.step_timeout_s`, after which the daemon takes the worker for hung."""

_SCRIPT: Final = (
    "import sys; sys.path += sys.argv[1:]; from kolosal.engines.worker.templates.jinja import main; main()"
)


def _command() -> list[str]:
    """Python without its site packages and without the variables that change it, but with our search path: it starts sooner."""
    return [python_program()[0], "-I", "-S", "-c", _SCRIPT, *sys.path]


class TemplateFailed(Exception):
    """The template cannot be compiled, or refuses this conversation. The message is the template's own."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of the process, to a source or to one set of variables."""

    text: str = ""
    error: str | None = None


_ANSWERS = TypeAdapter(list[_Answer])


class TemplateRenderer:
    """Compiles and renders templates, one after the other. Belongs to one thread."""

    def __init__(self, command: Sequence[str] | None = None, *, max_wall_s: float = MAX_WALL_S) -> None:
        """`command`: the process, where it is not the usual one; `max_wall_s`: how long an answer may take."""
        self._command = _command() if command is None else command
        self._max_wall_s = max_wall_s
        self._process: _Process | None = None
        self._compiled: str | None = None

    def start(self) -> None:
        """Start the process, unless it runs. Returns at once; what it is told waits until it has imported Jinja."""
        if self._process is None or not self._process.is_running:
            self.close()
            self._process, self._compiled = _Process(self._command, self._max_wall_s), None

    def close(self) -> None:
        """End the process. What comes after that starts another."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def compile(self, source: str, *, renew: bool = True) -> None:
        """Make this the template that the process has; `renew` as for `render`.

        Raises:
            TemplateFailed: it is no Jinja template, or costs more than it may.
            OSError: the process cannot be started.
        """
        invalid = "The chat template is not valid: "
        if len(source) > limits.MAX_TEMPLATE_CHARS:
            raise TemplateFailed(
                f"{invalid}it has {len(source)} characters, more than {limits.MAX_TEMPLATE_CHARS}"
            )
        [result] = self._ask({"source": source, "renew": renew}, 1, invalid)
        if isinstance(result, TemplateFailed):
            raise result
        self._compiled = source

    def render(
        self, source: str, variables: list[dict[str, Any]], *, renew: bool
    ) -> list[str | TemplateFailed]:
        """What a template makes of each of some sets of variables, or why it refuses them.

        `renew`: with all the processor time that one request may take; else with what the request before has left of it.

        Raises:
            TemplateFailed: together they cost more than they may.
            OSError: the process cannot be started.
        """
        self.start()
        if source != self._compiled:
            self.compile(source, renew=renew)
            renew = False
        refused = "The model's chat template refused the messages: "
        return self._ask({"variables": variables, "renew": renew}, len(variables), refused)

    def _ask(self, request: dict[str, Any], n_answers: int, failure: str) -> list[str | TemplateFailed]:
        self.start()
        assert self._process is not None  # noqa: S101 - started
        line = self._process.ask(json.dumps(request).encode() + b"\n")
        with contextlib.suppress(ValidationError):
            answers = _ANSWERS.validate_json(line, strict=True)
            if len(answers) == n_answers:
                return [
                    answer.text if answer.error is None else TemplateFailed(failure + answer.error)
                    for answer in answers
                ]
        reason, self._process = self._process.end(), None
        raise TemplateFailed(failure + reason)


class _Process:
    """One process, and a thread that ends it when it is late: so an answer has a deadline on every system."""

    def __init__(self, command: Sequence[str], max_wall_s: float) -> None:
        # The environment is the worker's, in which there are no keys.
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **spawn_options()
        )
        self._max_wall_s = max_wall_s
        limit_child(self._child.pid, limits.MAX_MEMORY_BYTES)
        self._is_ready = self._is_late = False
        self._timeout_s = max_wall_s
        self._deadline_s: float | None = None
        self._ended = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="renderer-watchdog", daemon=True)
        self._watchdog.start()

    @property
    def is_running(self) -> bool:
        """Whether it can be told something."""
        return self._child.poll() is None

    def ask(self, request: bytes) -> bytes:
        """The line that answers a request; nothing where the process ends instead, or is late.

        Raises:
            OSError: the process did not start.
        """
        if not self._is_ready:
            self._is_ready = bool(self._answer(b"", _MAX_START_S))
            if not self._is_ready:
                raise OSError(f"The process that renders chat templates did not start: {self.end()}")
        return self._answer(request, self._max_wall_s)

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
            return f"it takes more than {limits.MAX_CPU_S:g} s of processor time"
        if status == limits.OUT_OF_MEMORY:
            return f"it needs more than {limits.MAX_MEMORY_BYTES >> 20} MiB of memory"
        return f"the process that renders it ended ({describe_exit(status)})"

    def _answer(self, request: bytes, timeout_s: float) -> bytes:
        requests, answers = self._child.stdin, self._child.stdout
        assert requests is not None and answers is not None  # noqa: S101, PT018 - spawned with pipes
        self._timeout_s, self._deadline_s = timeout_s, time.monotonic() + timeout_s
        try:
            requests.write(request)
            requests.flush()
            return answers.readline(limits.MAX_ANSWER_BYTES)
        except OSError:
            return b""
        finally:
            self._deadline_s = None

    def _watch(self) -> None:
        """End the process where its answer is late.

        It looks now and then: to be woken for each request would cost more than most renderings.
        """
        while not self._ended.wait(self._max_wall_s / 8):
            deadline_s = self._deadline_s
            if deadline_s is not None and time.monotonic() > deadline_s:
                self._is_late = True
                self._child.kill()
