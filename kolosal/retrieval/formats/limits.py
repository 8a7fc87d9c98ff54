"""What one file's text may be. For the daemon and for the processes that make it."""

from __future__ import annotations

from typing import Final

MAX_TEXT_CHARS: Final = 16 * 1024 * 1024
"""Characters of the text of one file: some 4 million tokens."""


def check_length(n_chars: int) -> None:
    """Raises `ValueError` where a text is longer than one may be."""
    if n_chars > MAX_TEXT_CHARS:
        raise ValueError(f"its text has more than {MAX_TEXT_CHARS} characters, which is what a file may have")
