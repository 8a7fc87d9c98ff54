"""H11, in all tests: what of the daemon's own code held an event loop up.

What the test itself computes does not count, nor garbage collection: a process of tests has far more objects than a daemon.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

_OURS = tuple(str(Path(__file__).parents[2] / "kolosal") + each for each in ("/", "\\"))
_SERVERS = ("uvicorn", "starlette", "websockets")
"""Packages whose tasks run our code."""


@contextmanager
def watched(limit_s: float) -> Iterator[list[tuple[float, str]]]:
    """Seconds of processor time of each callback above the limit, and what it was. Sees asyncio's own loop only."""
    stalls: list[tuple[float, str]] = []
    collecting = [0.0, 0.0]  # when it began, and the sum
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began, collected = time.thread_time(), collecting[1]
        run(handle)
        taken = time.thread_time() - began - (collecting[1] - collected)
        if taken > limit_s and (name := _name_of(handle)) is not None:
            stalls.append((taken, name))

    def on_collection(phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            collecting[0] = time.thread_time()
        else:
            collecting[1] += time.thread_time() - collecting[0]

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    gc.callbacks.append(on_collection)
    try:
        yield stalls
    finally:
        gc.callbacks.remove(on_collection)
        asyncio.Handle._run = run  # type: ignore[method-assign]


def _name_of(handle: asyncio.Handle) -> str | None:
    """What a callback is; None for a task of a test, in which the test's own work is."""
    callback = handle._callback  # type: ignore[attr-defined]
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return repr(callback)[:200]
    code: CodeType | None = getattr(task.get_coro(), "cr_code", None)
    file = "" if code is None else code.co_filename
    is_ours = file.startswith(_OURS) or any(name in Path(file).parts for name in _SERVERS)
    return f"{file}: {code.co_qualname}" if code is not None and is_ours else None
