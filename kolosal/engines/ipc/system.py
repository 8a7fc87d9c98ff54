"""What spawning and ending a worker needs of the system this runs on: the one place that chooses between the pair."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from kolosal.engines.ipc.process_windows import (
        describe_exit,
        end_workers_with_this_process,
        memory_kills,
        python_program,
        spawn_options,
    )
else:
    from kolosal.engines.ipc.process_posix import (
        describe_exit,
        end_workers_with_this_process,
        memory_kills,
        python_program,
        spawn_options,
    )

__all__ = [
    "describe_exit",
    "end_workers_with_this_process",
    "memory_kills",
    "python_program",
    "spawn_options",
]
