"""HeadLock: which daemon is the head of a cluster. One named actor in it, which forgets a head that gives no sign of life.

A second head would start workers for the same engines and take those of the first for its own. The actor does one thing at a time,
so of two that ask at once one is first.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

import psutil

BEAT_S = 3.0
"""How often the head says that it is there."""

_FORGET_AFTER_S = 4 * BEAT_S


@dataclass(frozen=True, slots=True)
class Head:
    """A daemon that is the head, in one run of it."""

    name: str
    host: str
    pid: int

    def ended_here(self) -> bool:
        """Whether it ran on this machine, and its process is gone."""
        return self.host == socket.gethostname() and not psutil.pid_exists(self.pid)


class HeadLock:
    """What the actor keeps."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._beat_at = 0.0

    def claim(self, head: Head) -> Head | None:
        """Be the head, or go on being it: None. Else who is."""
        now = time.monotonic()
        held = self._head is not None and now - self._beat_at < _FORGET_AFTER_S
        if held and self._head is not None and self._head.name != head.name:
            return self._head
        self._head, self._beat_at = head, now
        return None

    def last_beat(self) -> float:
        """When the head was last heard, on the clock of this machine."""
        return self._beat_at

    def release(self, name: str) -> None:
        """Be it no more."""
        if self._head is not None and self._head.name == name:
            self._head = None
