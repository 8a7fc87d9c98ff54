"""What others have an engine do besides generating: calls of the right kind, split where they are too much for one frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import MAX_INPUTS, Call, CallResult, Embed, Embedded, portions
from kolosal.errors import InternalError
from kolosal.schema import TextPrompt, TokensPrompt

MAX_CALL_CHARS = 1_048_576
"""Characters, or tokens, of one call: more is sent in several, so that each fits into a frame."""

_MAX_CALL_NUMBERS = 1_048_576
"""Numbers of the vectors of one call (5.6 MB as text): more are asked for in several, so that each answer fits into a frame."""

R = TypeVar("R", bound=CallResult)


async def unary_call(engine: Engine, call: Call, kind: type[R]) -> R:
    """The result of a call, of the kind that belongs to it."""
    result = await engine.call(call)
    if not isinstance(result, kind):
        raise InternalError
    return result


async def embed_all(
    engine: Engine, prompts: Sequence[TextPrompt | TokensPrompt], dimensions: int | None = None
) -> Embedded:
    """All vectors, asked for in as many calls as it takes."""
    width = engine.info.n_embd if engine.info is not None else 0
    at_once = min(MAX_INPUTS, max(1, _MAX_CALL_NUMBERS // max(1, dimensions or width)))
    sizes = [len(prompt.text if isinstance(prompt, TextPrompt) else prompt.tokens) for prompt in prompts]
    vectors: tuple[str, ...] = ()
    n_tokens: tuple[int, ...] = ()
    for portion in portions(sizes, MAX_CALL_CHARS, at_once):
        part = await unary_call(engine, Embed(tuple(prompts[portion]), dimensions, portion.start), Embedded)
        vectors += part.vectors
        n_tokens += part.n_tokens
    return Embedded(vectors, n_tokens)
