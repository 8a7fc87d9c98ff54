"""EventLog: what happened in the daemon lately, for whoever follows it. Names, ids and counts only.

Owns the ids of events, by which a reader that was cut off goes on where it was. They begin with a mark of the daemon's
run, so that ids of an earlier run are not taken for ours.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from pydantic import JsonValue

from kolosal.observe.ring import Ring

MAX_EVENTS = 4096
"""Events that are kept for readers that come late or are slow."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    kind: str
    """`engine.state`, `request.ended`, …"""
    time_ms: int
    """Unix time in milliseconds."""
    data: dict[str, JsonValue]


class EventLog:
    """The last events. Used on the event loop only."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self.ring: Ring[Event] = Ring(MAX_EVENTS)

    def publish(self, kind: str, **data: JsonValue) -> None:
        """Note that something happened."""
        self.ring.append(Event(kind, now_ms(), data))

    def id_of(self, number: int) -> str:
        """The id of the event of that number."""
        return f"{self._run}-{number}"

    def after_id(self, event_id: str) -> int | None:
        """The number of the event of that id; None where it is of another run, or none of ours."""
        run, _, number = event_id.rpartition("-")
        if run != self._run or not number.isascii() or not number.isdigit() or len(number) > 18:
            return None
        return min(int(number), self.ring.newest)

    def close(self) -> None:
        """Let the readers end."""
        self.ring.close()
