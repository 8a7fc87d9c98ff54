"""Threads whose stack is as deep as what runs on them may recurse."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")

_creating = threading.Lock()  # the size is one for all threads that are created meanwhile


def start_thread(run: Callable[[], None], name: str, stack_bytes: int) -> threading.Thread:
    """A daemon thread that runs this, on a stack of so many bytes; those are addresses, and memory only once they are used."""
    with _creating:
        before = threading.stack_size(stack_bytes)
        try:
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
    return thread


class EngineThread:
    """The thread that all of a model is computed on, from its load to the last token.

    libgomp keeps a team of threads for each thread that ever computed in parallel, as loading does on processors with AMX. Where
    there are more of them than processors, all of them sleep at each barrier instead of waiting awake: a token of a small model took
    10 ms instead of 7, and 650 naps.
    """

    def __init__(self, stack_bytes: int) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = start_thread(self._run, "engine", stack_bytes)

    def begin(self, work: Callable[[], T]) -> Future[T]:
        """Have it done, after all that was begun before. What it raises is the future's."""
        future: Future[T] = Future()
        self._work.put(partial(_settle, future, work))
        return future

    def close(self, timeout_s: float) -> bool:
        """Wait until all that was begun is done; False when that takes longer than it may."""
        self._work.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except BaseException as exc:  # noqa: BLE001 - raised again where the result is asked for
        future.set_exception(exc)
