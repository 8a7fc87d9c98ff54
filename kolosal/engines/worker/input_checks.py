"""What is checked of an input before it costs time: that it can fit the context, and that its tokens exist."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from kolosal.engines.worker.backend import Backend
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
        n_tokens = -(-n_chars // MAX_CHARS_PER_TOKEN)
        raise ContextLengthExceeded.of(n_tokens, n_ctx, note=f"{n_chars} characters, at least ")


def begins_with_bos(text: str, backend: Backend) -> bool:
    """Whether a prompt begins with what the model wants at the start, which is not added once more then: templates write it, and so
    does who sends back what a template made."""
    bos = backend.template.bos
    return bool(bos) and text.startswith(bos)


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
