"""What can go wrong in a benchmark. Each message is one line for the user."""

from __future__ import annotations

from collections.abc import Iterator


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


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error to report of tasks that failed together; the group itself where it holds more than ours."""
    leaves = list(_leaves(group))
    return leaves[0] if all(isinstance(leaf, BenchError) for leaf in leaves) else group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
