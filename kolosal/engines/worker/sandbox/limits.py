"""What a limited process may cost. For the worker and for the process itself."""

from __future__ import annotations

from typing import Final, NamedTuple


class ProcessLimits(NamedTuple):
    """The bounds of one process, and of one request to it."""

    cpu_s: float
    """Processor time of one request."""
    memory_bytes: int
    """Of the process."""
    answer_bytes: int
    """Of the line that answers a request."""


OUT_OF_MEMORY: Final = 12
"""Exit status of a process that would need more memory than it may: ENOMEM."""
