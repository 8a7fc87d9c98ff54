"""`truncate`: a chat that is too long for its engine loses its oldest turns."""

from __future__ import annotations

from dataclasses import replace

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Render, Rendered
from kolosal.errors import ContextLengthExceeded
from kolosal.routes.common.unary_calls import ask
from kolosal.schema import ChatPrompt


async def shortened(engine: Engine, prompt: ChatPrompt, window: int | None) -> ChatPrompt | None:
    """The prompt with as many of its turns as there is room for; None where even the last one is too long.

    There is room for as many tokens as the engine's context window has, or `window` where that is less. What the system says
    stays, and so does the last turn; a result never stands without its call. How long a prompt is only its engine knows, so
    the first turn to keep is searched for.

    Raises:
        KolosalError: as `Engine.call`.
    """
    starts = [
        index for index, message in enumerate(prompt.messages) if message.role not in ("system", "tool")
    ]
    low, high = 1, len(starts)
    while low < high:
        middle = (low + high) // 2
        if await _fits(engine, _from(prompt, starts[middle]), window):
            high = middle
        else:
            low = middle + 1
    if low >= len(starts):
        return None
    return _from(prompt, starts[low])


def _from(prompt: ChatPrompt, start: int) -> ChatPrompt:
    kept = [
        message for index, message in enumerate(prompt.messages) if index >= start or message.role == "system"
    ]
    return replace(prompt, messages=tuple(kept))


async def _fits(engine: Engine, prompt: ChatPrompt, window: int | None) -> bool:
    """Whether a prompt leaves room for an answer."""
    try:
        rendered = await ask(engine, Render(prompt), Rendered)
    except ContextLengthExceeded:
        return False
    rooms = [window, None if engine.info is None else engine.info.n_ctx]
    return all(room is None or rendered.n_tokens < room for room in rooms)
