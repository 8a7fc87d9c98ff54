"""SessionStore: the sessions of WebSocket clients, bounded by count, size and time. Pure but for the clock it is given.

A session is what its client set once: tools and a model. What was said in it is the business of `kept_sessions.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from kolosal.config.sessions import SessionSettings
from kolosal.errors import QueueFull
from kolosal.schema import Tool

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""Bytes of the tools of all sessions together."""


@dataclass(slots=True)
class Session:
    """What a client set once."""

    id: str
    owner: str | None
    """The API key that made it; None where no keys are used."""
    tools: tuple[Tool, ...]
    model: str | None
    n_bytes: int
    """About how much memory it takes."""
    last_seen: float = 0.0
    connections: int = 0


class SessionStore:
    """All sessions of a daemon, the least recently used first. Used on the event loop only."""

    def __init__(self, limits: SessionSettings, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._n_bytes = 0
        self._connections = 0

    def create(
        self, tools: tuple[Tool, ...], model: str | None, n_bytes: int, owner: str | None = None
    ) -> Session:
        """A new session. Raises as `add`."""
        session = Session(str(uuid.uuid4()), owner, tools, model, n_bytes)
        self.add(session)
        return session

    def add(self, session: Session) -> None:
        """Take a session; makes room by forgetting idle ones, its owner's first.

        Raises:
            QueueFull: all others are in use.
        """
        if session.id in self._sessions:
            return
        self._forget_expired()
        while (
            len(self._sessions) >= self.limits.max_count or self._n_bytes + session.n_bytes > MAX_TOTAL_BYTES
        ):
            idle = [each for each in self._sessions.values() if not each.connections]
            if not idle:
                raise QueueFull("There are as many sessions in use as there may be")
            self._forget(next((each for each in idle if each.owner == session.owner), idle[0]))
        session.last_seen = self._clock()
        self._sessions[session.id] = session
        self._n_bytes += session.n_bytes

    def connect(self, session_id: str, owner: str | None = None) -> Session | None:
        """The session of that id, in use until `disconnect`; None where its owner has none, or not any more.

        Raises:
            QueueFull: there are as many connections as there may be.
        """
        self._forget_expired()
        session = self._sessions.get(session_id)
        if session is None or session.owner != owner:
            return None
        if self._connections >= self.limits.max_connections:
            raise QueueFull("There are as many connections as there may be")
        self._connections += 1
        session.connections += 1
        return session

    def disconnect(self, session: Session) -> None:
        """A connection has ended: from now on the session may expire."""
        self._connections -= 1
        session.connections -= 1
        session.last_seen = self._clock()
        if session.id in self._sessions:
            self._sessions[session.id] = self._sessions.pop(session.id)

    def _forget_expired(self) -> None:
        oldest = self._clock() - self.limits.ttl_s
        for session in [*self._sessions.values()]:
            if not session.connections and session.last_seen < oldest:
                self._forget(session)

    def _forget(self, session: Session) -> None:
        del self._sessions[session.id]
        self._n_bytes -= session.n_bytes
