"""A worker without llama.cpp: the real process, frames and engine loop over `FakeBackend`, with scripted faults."""

from __future__ import annotations

import sys


def fake_worker_argv(*faults: str) -> tuple[str, ...]:
    """The command line of such a worker: `fake_worker_argv("crash@5", "step_s=0.01")`; see `backend.Faults`."""
    return (
        sys.executable, "-m", "tests.fake_worker", *(part for fault in faults for part in ("--fault", fault))
    )  # fmt: skip
