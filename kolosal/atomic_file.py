"""Putting a new file in the place of another, also where a file that somebody reads cannot be replaced (Windows)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

TRIES = 40 if sys.platform == "win32" else 1
PAUSE_S = 0.05
"""Readers, virus scanners among them, have a file open for a moment: two seconds are many of these."""


def replace_file(
    new: Path, old: Path, *, tries: int = TRIES, pause: Callable[[float], None] = time.sleep
) -> None:
    """Rename `new` to `old`, which may be there. Blocks while it is being read.

    Raises:
        OSError: it cannot be done, or not within two seconds; both files are as they were.
    """
    for _ in range(tries - 1):
        try:
            new.replace(old)
        except PermissionError:
            pause(PAUSE_S)
        else:
            return
    new.replace(old)
