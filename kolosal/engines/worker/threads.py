"""Threads whose stack is as deep as what runs on them may recurse."""

from __future__ import annotations

import threading
from collections.abc import Callable

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
