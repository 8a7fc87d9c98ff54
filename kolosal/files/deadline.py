"""Calls that may never return, given up after a while: a network mount whose server is gone holds whoever touches it.

Such a call cannot be ended. It is left behind in a thread that nobody waits for, also not the end of the process.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LIMIT_S = 10.0
"""How long a disk may take to answer; one that has to start spinning takes a few seconds."""

MAX_THREADS = 256
"""Calls at the same time. So many are not left behind but where a disk is gone."""

_IDLE_S = 10.0
_MAX_IDLE = 4
"""How long threads wait for another call, and how many."""

_idle: list[_Thread] = []
_idle_lock = threading.Lock()
_places = threading.BoundedSemaphore(MAX_THREADS)


class NoAnswer(OSError):
    """The disk did not answer in time. No `TimeoutError`, which callers take for the end of their own time."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ETIMEDOUT, reason)


def start(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Begin a call in a thread of its own.

    Raises:
        NoAnswer: too many calls run, which do not return.
    """
    if not _places.acquire(blocking=False):
        raise NoAnswer(f"{MAX_THREADS} calls wait for the disk already")
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from now on it cannot be cancelled, whoever leaves

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:  # noqa: BLE001 - whoever waits gets it
            future.set_exception(exc)
        else:
            future.set_result(result)
        finally:
            _places.release()

    with _idle_lock:
        thread = _idle.pop() if _idle else None
    (thread or _Thread()).jobs.put(run)
    return future


class _Thread:
    """Does one call after the other, and ends when there is none for a while: each new thread has a heap of its own."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._run, name="disk", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=_IDLE_S)
            except Empty:
                with _idle_lock:
                    if self in _idle:
                        _idle.remove(self)
                        return
                continue  # it was chosen at this moment
            job()
            del job  # and with it what it gave
            with _idle_lock:
                if len(_idle) >= _MAX_IDLE:
                    return
                _idle.append(self)


def within(limit_s: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a call gives. Blocks, but not for longer than this.

    Raises:
        NoAnswer: it takes longer, and goes on without anybody.
    """
    future = start(function, *args, **kwargs)
    if not wait([future], limit_s).done:
        raise too_slow(limit_s)
    return future.result()


def too_slow(limit_s: float) -> NoAnswer:
    """What a call that was given up after so many seconds ends with."""
    return NoAnswer(f"the disk did not answer within {limit_s:g} seconds")
