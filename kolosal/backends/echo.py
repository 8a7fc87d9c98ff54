"""The backend `echo`: answers with the last thing that was said. For tests of what is above a model, without one.

A token is a character, and there is but one that can come next, so no way to choose changes it. The same request has the same
answer in any process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from kolosal.backends.arguments import SAMPLING
from kolosal.backends.interface import BackendFacts, BackendInterfaceBase, Finish, Messages, Piece
from kolosal.schema import Usage

_N_VOCAB = 0x110000


class EchoInterface(BackendInterfaceBase):
    """See above."""

    supports = (SAMPLING - {"logit_bias"}) | {"text_prompts", "template_kwargs", "tools"}
    can_resume = True

    def load(self, on_progress: Callable[[float], None]) -> BackendFacts:
        on_progress(1.0)
        return BackendFacts("echo", "echo", n_vocab=_N_VOCAB)

    async def inference(self, messages: Messages, **kwargs: Any) -> AsyncGenerator[str, None]:  # noqa: ARG002
        said = messages if isinstance(messages, str) else _last_said(messages)
        for character in said:
            yield Piece(character, (ord(character),))
            await asyncio.sleep(0)  # others take turns, and an abort comes in between
        yield Finish("stop", Usage(self.count_tokens(messages), len(said)))

    def count_tokens(self, messages: Messages, **kwargs: Any) -> int:  # noqa: ARG002
        return len(self.render(messages))

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> Sequence[int]:  # noqa: ARG002
        return [ord(character) for character in text]

    def token_bytes(self, token: int) -> bytes:
        return chr(token).encode(errors="replace")


def _last_said(messages: list[dict[str, Any]]) -> str:
    """What the last turn says, whoever's it is; nothing where there is none."""
    return str(messages[-1]["content"] or "") if messages else ""
