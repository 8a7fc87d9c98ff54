"""CompileQueue: what needs a grammar that was not compiled before waits here, and not on the thread that forwards pings.

Each job has a thread, whose stack is deep, and a process that compiles first; two run at once, the shortest grammars first, so
that one that takes all its time does not keep others waiting. Threads live as long as there are jobs.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Final

from kolosal.engines.worker.grammars.checker import GrammarChecker
from kolosal.engines.worker.grammars.limits import MATCH_STACK_BYTES
from kolosal.engines.worker.threads import start_thread

_N_THREADS: Final = 2

Job = Callable[[GrammarChecker], Callable[[], None]]
"""Compiles with the help of a checker; what it returns ends the job, unless it was cancelled meanwhile. Raises nothing."""


class CompileQueue:
    """Runs jobs. Its methods are called by the main thread.

    Unbounded here: the daemon admits at most n_parallel + max_queued requests per engine.
    """

    def __init__(
        self, make_checker: Callable[[], GrammarChecker], on_cancelled: Callable[[int], None]
    ) -> None:
        """`on_cancelled` is told when a job that was cancelled has ended, on any thread."""
        self._on_cancelled = on_cancelled
        self._checkers = [make_checker() for _ in range(_N_THREADS)]
        self._free = [*self._checkers]
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, int, Job]] = []
        self._cancelled: dict[int, bool] = {}
        """Whether they were cancelled, of all jobs that have not ended."""

    def put(self, request_id: int, size: int, job: Job) -> None:
        """Have a job done; `size` says how long it may take, compared with others."""
        with self._lock:
            self._cancelled[request_id] = False
            heapq.heappush(self._waiting, (size, next(self._order), request_id, job))
            if self._free:
                checker = self._free.pop()
                thread = start_thread(lambda: self._run(checker), "grammar", MATCH_STACK_BYTES)
                self._threads.add(thread)

    def cancel(self, request_id: int) -> bool:
        """Let a job not end as it would; False where there is none."""
        with self._lock:
            if request_id not in self._cancelled:
                return False
            self._cancelled[request_id] = True
            return True

    def close(self, timeout_s: float) -> bool:
        """Do nothing more, and end the processes; False when that takes longer than it may."""
        with self._lock:
            self._waiting.clear()
            threads = [*self._threads]
        deadline_s = time.monotonic() + timeout_s
        for checker in self._checkers:
            checker.kill()
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            return False
        for checker in self._checkers:
            checker.close()
        return True

    def _run(self, checker: GrammarChecker) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._free.append(checker)
                    self._threads.discard(threading.current_thread())
                    return
                _, _, request_id, job = heapq.heappop(self._waiting)
                is_cancelled = self._cancelled[request_id]
            end = None if is_cancelled else job(checker)
            with self._lock:  # so that a cancellation comes before the end or after it
                if self._cancelled.pop(request_id) or end is None:
                    self._on_cancelled(request_id)
                else:
                    end()
