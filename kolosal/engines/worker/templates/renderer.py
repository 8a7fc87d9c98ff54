"""The process that renders chat templates, as the worker sees it.

What a template can do in it is `jinja.py`'s business; when it is ended and started anew, `sandbox/process.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kolosal.engines.worker.sandbox.process import LimitedProcess, ProcessFailed, command_for
from kolosal.engines.worker.templates import limits


class TemplateFailed(Exception):
    """The template cannot be compiled, or refuses this conversation. The message is the template's own."""


class TemplateRenderer:
    """Compiles and renders templates, one after the other. Belongs to one thread."""

    def __init__(self, command: Sequence[str] | None = None, *, max_wall_s: float | None = None) -> None:
        """`command`: the process, where it is not the usual one; `max_wall_s`: how long an answer may take, where that is not the usual."""
        self._command = command_for("kolosal.engines.worker.templates.jinja") if command is None else command
        self._max_wall_s = max_wall_s
        self._process: LimitedProcess | None = None
        self._compiled: str | None = None

    def start(self) -> None:
        """Start the process, unless it runs. Returns at once; what it is told waits until it has imported Jinja."""
        if self._process is None or not self._process.is_running:
            self.close()
            self._process = LimitedProcess(
                self._command, limits.LIMITS, "renders chat templates", max_wall_s=self._max_wall_s
            )
            self._compiled = None

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
        try:
            answers = self._process.ask(request, n_answers)
        except ProcessFailed as exc:
            raise TemplateFailed(f"{failure}{exc}") from exc
        return [
            answer.text if answer.error is None else TemplateFailed(failure + answer.error)
            for answer in answers
        ]
