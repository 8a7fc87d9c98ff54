"""Backends that do what the last message says, for tests of what serves them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from kolosal.backends import BackendFacts, BackendInterfaceBase, Finish, Messages, Piece, ThreadContext, Usage


class CountingContext(ThreadContext):
    """A conversation that knows how often it was run."""

    def get_local_messages(self) -> list[dict[str, Any]]:
        self.n_runs = getattr(self, "n_runs", 0) + 1
        return [*super().get_local_messages(), {"role": "tool", "content": f"run {self.n_runs}"}]


class Scripted(BackendInterfaceBase):
    """`count N`, `die FILE`, `wait`, `block`, `raise`, `unfinished`, `runs`, `arguments`, `tokens`."""

    thread_context = CountingContext
    supports = frozenset({"repeat_penalty", "tools"})

    def load(self, on_progress: Callable[[float], None]) -> BackendFacts:
        on_progress(0.5)
        match self.args.backend_options:
            case {"fails": "memory"}:
                raise MemoryError("no room for the script")
            case {"fails": str(words)}:
                raise ValueError(words)
        return BackendFacts("a script", n_ctx_train=100)

    def count_tokens(self, messages: Messages, **kwargs: Any) -> int:
        return len(messages)

    async def inference(self, messages: Messages, **kwargs: Any) -> AsyncGenerator[str, None]:
        word, _, argument = str(messages[-2]["content"]).partition(" ")  # type: ignore[index]
        match word:
            case "count":
                for number in range(int(argument)):
                    yield f"{number} "
                    await asyncio.sleep(0)
            case "die":
                async for piece in _count_and_die(Path(argument)):
                    yield piece
            case "wait":
                yield "a"
                await asyncio.Event().wait()
            case "block":
                yield "a"
                await asyncio.sleep(0)  # what was said goes out
                time.sleep(3600)  # noqa: ASYNC251 - what no backend may do
            case "raise":
                yield "a"
                raise ZeroDivisionError
            case "runs":
                yield messages[-1]["content"]  # type: ignore[index]
            case "arguments":
                yield " ".join(sorted(kwargs))
            case "tokens":
                yield Piece("ab", (1, 2))
                yield Finish("length", Usage(7, 2, 3))
        if word != "unfinished":
            yield Finish("stop")


async def _count_and_die(file: Path) -> AsyncGenerator[str, None]:
    """Ten numbers; the first process to come to the sixth makes the file and dies."""
    for number in range(10):
        if number == 5 and not file.exists():  # noqa: ASYNC240 - once
            file.touch()  # noqa: ASYNC240
            os._exit(3)
        yield f"{number} "
        await asyncio.sleep(0)


class Resuming(Scripted):
    """The same, always alike."""

    can_resume = True
