"""WaitingQueue: who is admitted next. By priority, then clients in turns, then first come, first served.

Clients take turns, so that one who sends a hundred requests does not make the others wait for all of them: start-time fair
queuing (Goyal, Vin and Cheng, SIGCOMM 1996) where each request costs 1 and each client has the same share. A sequence's `turn`
is its start tag, and the turn that started last is the virtual time.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from kolosal.engines.worker.schedule.sequence import Sequence

MAX_CLIENTS = 1000
"""Clients whose last turn is remembered, unless more are waiting."""


class WaitingQueue:
    """Sequences that wait to be admitted, the next one first."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []
        self._last_turns: dict[tuple[int, str], int] = {}  # that each client has, by priority
        self._now: dict[int, int] = {}  # the latest turn that has started, by priority

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence: after all of its client, in the client's next turn."""
        key = (sequence.priority, sequence.client)
        now = self._now.get(sequence.priority, 0)
        sequence.turn = max(now, self._last_turns.get(key, -1) + 1)
        self._last_turns[key] = sequence.turn
        if (
            len(self._last_turns) > MAX_CLIENTS
        ):  # those whose turns are over would be treated as new ones anyway
            self._last_turns = {
                key: turn for key, turn in self._last_turns.items() if turn >= self._now.get(key[0], 0)
            }
        bisect.insort_right(self._sequences, sequence, key=_rank)

    def put_back(self, sequence: Sequence) -> None:
        """Queue one that has been running before those of its priority and turn that never ran."""
        bisect.insort_left(self._sequences, sequence, key=_rank)

    def start(self, sequence: Sequence) -> None:
        """Take out one that is admitted: its turn has come."""
        self._sequences.remove(sequence)
        self._now[sequence.priority] = max(self._now.get(sequence.priority, 0), sequence.turn)

    def remove(self, sequence: Sequence) -> None:
        """Take out one that has ended."""
        self._sequences.remove(sequence)


def _rank(sequence: Sequence) -> tuple[int, int]:
    return -sequence.priority, sequence.turn
