"""What can go wrong in a benchmark. Each message is one line for the user."""

from __future__ import annotations


class BenchError(Exception):
    """A workload, or the whole benchmark, could not be done."""


class Unreachable(BenchError):
    """Nothing answers at the address, or the connection broke."""


class Refused(BenchError):
    """The server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the server answered HTTP {status}: {message}")
        self.status = status


class Skipped(Exception):
    """This workload does not apply to this server; the message says why."""
