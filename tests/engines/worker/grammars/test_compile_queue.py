"""Jobs that compile: in which order, and what becomes of those that nobody waits for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

from kolosal.engines.worker.grammars.checker import GrammarChecker
from kolosal.engines.worker.grammars.compile_queue import CompileQueue, Job

DEADLINE_S = 30.0


class Jobs:
    """A queue, and what its jobs did."""

    def __init__(self) -> None:
        self.done: queue.Queue[str] = queue.Queue()
        self.queue = CompileQueue(
            lambda: GrammarChecker(dict), lambda request_id: self.done.put(f"{request_id} cancelled")
        )
        self.go_on = threading.Event()

    def job(self, name: str, wait: threading.Event | None = None) -> Job:
        def run(_checker: GrammarChecker) -> Callable[[], None]:
            if wait is not None:
                self.done.put(f"{name} runs")
                assert wait.wait(DEADLINE_S)
            return lambda: self.done.put(f"{name} ends")

        return run

    def next(self) -> str:
        return self.done.get(timeout=DEADLINE_S)

    def busy(self, other: threading.Event | None = None) -> None:
        """Two jobs that take their time; `other`: until when the first does."""
        for request_id, go_on in ((1, other or self.go_on), (2, self.go_on)):
            self.queue.put(request_id, 1, self.job(str(request_id), go_on))
            assert self.next() == f"{request_id} runs"


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def test_two_run_at_once_and_the_shortest_are_next(jobs: Jobs) -> None:
    later = threading.Event()
    jobs.busy(later)
    for request_id, size in ((3, 30), (4, 10), (5, 20)):
        jobs.queue.put(request_id, size, jobs.job(f"{request_id}"))
    assert jobs.done.empty()
    jobs.go_on.set()  # one thread is free from now on, so that what it does has an order

    assert [jobs.next() for _ in range(4)] == ["2 ends", "4 ends", "5 ends", "3 ends"]
    later.set()
    assert jobs.next() == "1 ends"
    assert jobs.queue.close(DEADLINE_S)


def test_job_that_waits_is_not_begun_when_it_was_cancelled(jobs: Jobs) -> None:
    jobs.busy()
    jobs.queue.put(3, 1, jobs.job("3", jobs.go_on))
    assert jobs.queue.cancel(3)
    jobs.go_on.set()

    assert sorted(jobs.next() for _ in range(3)) == ["1 ends", "2 ends", "3 cancelled"]
    assert jobs.queue.close(DEADLINE_S)


def test_job_that_runs_does_not_end_as_it_would_when_it_was_cancelled(jobs: Jobs) -> None:
    jobs.busy()
    assert jobs.queue.cancel(1)
    jobs.go_on.set()

    assert sorted(jobs.next() for _ in range(2)) == ["1 cancelled", "2 ends"]
    assert not jobs.queue.cancel(1)
    assert jobs.queue.close(DEADLINE_S)


def test_close_says_when_it_would_take_too_long(jobs: Jobs) -> None:
    jobs.busy()
    jobs.queue.put(3, 1, jobs.job("3"))

    assert not jobs.queue.close(0.0)
    jobs.go_on.set()
    assert jobs.queue.close(DEADLINE_S)
    assert sorted(jobs.next() for _ in range(2)) == ["1 ends", "2 ends"]
    assert jobs.done.empty()
