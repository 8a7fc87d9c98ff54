"""EventLog: what happened in the daemon lately, for whoever follows it. Names, ids and counts only."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pydantic import JsonValue

from kolosal.observe.journal import Journal

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


class EventLog(Journal[Event]):
    """The last events. Used on the event loop only."""

    def __init__(self) -> None:
        super().__init__(MAX_EVENTS)

    def publish(self, kind: str, **data: JsonValue) -> None:
        """Note that something happened."""
        self.ring.append(Event(kind, now_ms(), data))
