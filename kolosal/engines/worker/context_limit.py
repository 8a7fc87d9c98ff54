"""Whether a prompt can fit into the context window, told before its tokens are counted.

Tokenising takes time for each character, in which no other request is taken in.
"""

from __future__ import annotations

from kolosal.errors import ContextLengthExceeded

MAX_CHARS_PER_TOKEN = 256
"""Few tokens of any vocabulary are longer, and no prompt is made of such tokens alone."""


def check_size(n_chars: int, n_ctx: int) -> None:
    """Refuse a prompt that has more characters than can fit, whatever its tokens.

    Raises:
        ContextLengthExceeded: it has.
    """
    if n_chars > n_ctx * MAX_CHARS_PER_TOKEN:
        raise too_long(f"{n_chars} characters", n_ctx)


def too_long(length: str, n_ctx: int) -> ContextLengthExceeded:
    """The error for a prompt of such a length."""
    return ContextLengthExceeded(
        f"The prompt has {length}, but the context window of this engine is {n_ctx} tokens and must hold the answer too"
    )
