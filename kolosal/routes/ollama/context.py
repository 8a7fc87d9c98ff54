"""`context`: a conversation as tokens, which a client sends back to have it continued.

Its tokens stand before those of the new prompt. This is Ollama's old way; a chat keeps more of what a model's template knows.
"""

from __future__ import annotations

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Render, Rendered, Tokenize, Tokenized
from kolosal.errors import InvalidRequest
from kolosal.routes.common.unary_calls import ask
from kolosal.schema import ChatPrompt, Message


def check_context(engine: Engine, earlier: tuple[int, ...]) -> None:
    """Look whether a context can be this model's.

    Raises:
        InvalidRequest: it has a token that the model has not.
    """
    info, largest = engine.info, max(earlier, default=0)
    if info is not None and largest >= info.n_vocab:
        raise InvalidRequest(
            f"context must hold tokens of this model, which are less than {info.n_vocab}, not {largest}",
            param="context",
        )


async def continued(engine: Engine, earlier: tuple[int, ...], prompt: ChatPrompt) -> tuple[int, ...]:
    """The tokens of a prompt that follows an earlier conversation; a token that only texts begin with is not repeated.

    Raises:
        KolosalError: as `Engine.call`.
    """
    rendered = await ask(engine, Render(prompt, with_tokens=True), Rendered)
    if not earlier:
        return rendered.tokens
    start = (await ask(engine, Tokenize("", add_special=True, with_pieces=False), Tokenized)).tokens
    repeated = bool(start) and rendered.tokens[: len(start)] == start
    return earlier + (rendered.tokens[len(start) :] if repeated else rendered.tokens)


async def context_after(engine: Engine, earlier: tuple[int, ...], prompt: ChatPrompt, text: str) -> list[int]:
    """The tokens of a whole conversation, with the answer to its last prompt.

    Raises:
        KolosalError: as `Engine.call`.
    """
    answered = ChatPrompt(
        (*prompt.messages, Message("assistant", text)), continues=True, template_kwargs=prompt.template_kwargs
    )
    return [*await continued(engine, earlier, answered)]
