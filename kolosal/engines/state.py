"""EngineState, and ObservedState: what an engine tells of its life, and whom.

Knows nothing of workers and requests.
"""

from __future__ import annotations

from enum import StrEnum

from kolosal.observe.observer import Observer


class EngineState(StrEnum):
    """Where an engine is in its life."""

    UNLOADED = "unloaded"
    """No worker: never loaded yet, or the worker ended. The next use loads."""
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    """Its worker is being ended to free memory. A request that comes now waits for that, then loads again."""
    CLOSED = "closed"
    """Removed. Streams that were running may still be finishing; nothing new starts."""


class ObservedState:
    """State, progress and last error of one engine. Each change of the first two is told to the observer."""

    def __init__(self, engine_id: str, observer: Observer) -> None:
        """The observer is told at once that there is this engine."""
        self.engine_id = engine_id
        self.observer = observer
        self.last_error: str | None = None
        """Why the last load failed or the last worker ended; None after a good load."""
        self._state = EngineState.UNLOADED
        self._load_progress = 0.0
        self._replaced = False
        observer.engine_state(engine_id, self._state, None, None)

    def note_replaced(self) -> None:
        """Tell no more of its state: its name is another engine's. Its requests are still counted."""
        self._replaced = True

    @property
    def state(self) -> EngineState:
        """Where the engine is in its life. Whoever sets `last_error` as well sets it first, so that both are told."""
        return self._state

    @state.setter
    def state(self, state: EngineState) -> None:
        before, self._state = self._state, state
        if state is not before and not self._replaced:
            self.observer.engine_state(self.engine_id, state, before, self.last_error)

    @property
    def load_progress(self) -> float:
        """0…1 while loading, 1 once loaded."""
        return self._load_progress

    @load_progress.setter
    def load_progress(self, fraction: float) -> None:
        self._load_progress = fraction
        if self._state is EngineState.LOADING and not self._replaced:
            self.observer.load_progress(self.engine_id, fraction)
