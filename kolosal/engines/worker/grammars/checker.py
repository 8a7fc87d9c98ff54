"""The process that compiles grammars first, as the worker sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from kolosal.engines.worker.grammars.limits import LIMITS, MAX_IDLE_S
from kolosal.engines.worker.grammars.llguidance_text import GrammarTask, grammar_text
from kolosal.engines.worker.sandbox.process import LimitedProcess, ProcessFailed, command_for

CheckGrammar: TypeAlias = Callable[[GrammarTask, bool], str]
"""The grammar in llguidance's own form; the flag says whether the request's processor time begins anew.
Raises `GrammarRefused`."""


class GrammarRefused(Exception):
    """The grammar is not valid, or costs more than it may. The message says why."""


def check_here(task: GrammarTask, _renew: bool) -> str:
    """The grammar in llguidance's own form, where who wrote it is trusted."""
    try:
        return grammar_text(task)
    except (ValueError, RecursionError) as exc:
        raise GrammarRefused(str(exc)) from exc


class GrammarChecker:
    """Compiles grammars in a process that may end of it. Belongs to one thread at a time."""

    def __init__(
        self, vocabulary: Callable[[], dict[str, Any]], command: Sequence[str] | None = None
    ) -> None:
        """`vocabulary`: what the process needs to know of the model's; `command`: the process, where it is not the usual one."""
        self._vocabulary = vocabulary
        self._command = command or command_for("kolosal.engines.worker.grammars.check_process")
        self._process: LimitedProcess | None = None

    def check(self, task: GrammarTask, renew: bool) -> str:
        """See `CheckGrammar`. A process that ended is started anew.

        Raises:
            OSError: it cannot be started.
        """
        process = self._process
        if process is None or not process.is_running:
            self.close()
            process = self._process = LimitedProcess(
                self._command, LIMITS, "compiles grammars", max_idle_s=MAX_IDLE_S
            )
            process.ask({"vocabulary": self._vocabulary(), "renew": True}, 1)
        try:
            [answer] = process.ask({"task": task, "renew": renew}, 1)
        except ProcessFailed as exc:
            raise GrammarRefused(f"{exc}; it may be nested too deeply, or allow too much at once") from exc
        if answer.error is not None:
            raise GrammarRefused(answer.error)
        return answer.text

    def kill(self) -> None:
        """End what the process does, from any thread; what waits for its answer is refused."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process. What comes after that starts another."""
        if self._process is not None:
            self._process.end()
            self._process = None
