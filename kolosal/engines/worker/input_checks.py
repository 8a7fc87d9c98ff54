"""What is checked of an input before it costs time: that it can fit the context, and that its tokens exist."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from kolosal.errors import ContextLengthExceeded, InvalidRequest

MAX_CHARS_PER_TOKEN = 256
"""Few tokens of any vocabulary are longer, and no prompt is made of such tokens alone."""


def check_chars(n_chars: int, n_ctx: int) -> None:
    """Refuse a prompt that has more characters than can fit, whatever its tokens.

    Told before it is tokenised, which takes time for each character, in which no other request is taken in.

    Raises:
        ContextLengthExceeded: it has.
    """
    if n_chars > n_ctx * MAX_CHARS_PER_TOKEN:
        raise prompt_too_long(f"{n_chars} characters", n_ctx)


def prompt_too_long(length: str, n_ctx: int) -> ContextLengthExceeded:
    """The error for a prompt of such a length."""
    return ContextLengthExceeded(
        f"The prompt has {length}, but the context window of this engine is {n_ctx} tokens and must hold the answer too"
    )


def check_tokens(tokens: Seq[int], n_vocab: int, param: str) -> None:
    """See that all tokens are of the vocabulary: llama.cpp does not look.

    Raises:
        InvalidRequest: one is not.
    """
    if tokens and max(tokens) >= n_vocab:
        raise InvalidRequest(
            f"{param} must be below {n_vocab}, the size of the model's vocabulary, not {max(tokens)}",
            param=param,
        )
