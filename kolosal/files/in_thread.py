"""Blocking calls for the event loop.

In place of `asyncio.to_thread`, whose few threads one dead mount can use up, and for whose end a process that ends waits.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from kolosal.files.deadline import LIMIT_S, start, too_slow

T = TypeVar("T")


async def in_thread(
    function: Callable[..., T], *args: object, limit_s: float = LIMIT_S, **kwargs: object
) -> T:
    """What a blocking call gives. A caller that leaves leaves it behind.

    Raises:
        NoAnswer: it takes longer than `limit_s`.
    """
    call = partial(contextvars.copy_context().run, function, *args, **kwargs)
    future = asyncio.wrap_future(start(call))
    try:
        done, _ = await asyncio.wait([future], timeout=limit_s)
    finally:
        future.cancel()  # what comes too late is of no interest; does nothing to one that is done
    if not done:
        raise too_slow(limit_s)
    return future.result()
