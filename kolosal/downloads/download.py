"""One download as the daemon keeps it: what is fetched, how far it is, and what becomes of it. Pure."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Annotated

from pydantic import Field, TypeAdapter

from kolosal.downloads.messages import FileProgress
from kolosal.downloads.plan import DownloadPlan
from kolosal.engines.memory.policy import DEFAULT_RULES, Rules
from kolosal.engines.parameters import EngineId, LoadingParameters

_SPEED_S = 5.0
"""Over how long speed is measured."""


class DownloadStatus(StrEnum):
    """How it is."""

    DOWNLOADING = "downloading"
    PAUSED = "paused"
    CREATING_ENGINE = "creating_engine"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = frozenset({DownloadStatus.DOWNLOADING, DownloadStatus.CREATING_ENGINE})


@dataclass(frozen=True, slots=True)
class EngineWish:
    """The engine that is to be added when a model is there."""

    engine_id: EngineId
    parameters: LoadingParameters = field(default_factory=LoadingParameters)
    rules: Rules = DEFAULT_RULES
    load: bool = True
    given: tuple[str, ...] = ()
    """Names of the loading parameters that were given."""


@dataclass(frozen=True, slots=True)
class StoredDownload:
    """What of a download outlives the daemon."""

    id: Annotated[str, Field(min_length=1, max_length=1000)]
    plan: DownloadPlan
    engine: EngineWish | None
    status: DownloadStatus
    started_ms: int
    ended_ms: int | None
    error: str | None


@cache
def stored_adapter() -> TypeAdapter[StoredDownload]:
    """Reads one. Made when it is first needed: an idle daemon pays nothing for it."""
    return TypeAdapter(StoredDownload)


class Speed:
    """Bytes a second, over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, completed: int) -> None:
        """So many bytes are there."""
        self._seen.append((now, completed))
        while self._seen[0][0] < now - _SPEED_S:
            self._seen.popleft()

    def bytes_per_s(self, now: float) -> float:
        """0 where nothing came lately."""
        if not self._seen or now - self._seen[-1][0] > _SPEED_S:
            return 0.0
        (began, before), (_, after) = self._seen[0], self._seen[-1]
        return max(0.0, (after - before) / (now - began)) if now > began else 0.0


class Download:
    """One download. Used on the event loop only; changed by `Downloads`."""

    def __init__(self, stored: StoredDownload) -> None:
        self.id = stored.id
        self.plan = stored.plan
        self.engine = stored.engine
        self.status = stored.status
        self.started_ms = stored.started_ms
        self.ended_ms = stored.ended_ms
        self.error = stored.error
        """Why it failed, in one sentence."""
        self.queued = False
        """Whether it waits for others to end."""
        self.model: str | None = None
        """What the library calls it, once it is there."""
        self.progress: list[FileProgress | None] = [None] * len(stored.plan.files)
        """Of each file; None: nothing is known of it yet."""
        self.speed = Speed()
        self.changed = asyncio.Event()
        """Set at the next change. To be taken before what is there is looked at."""

    @property
    def completed_bytes(self) -> int:
        """What is on the disk of all files."""
        if self.status is DownloadStatus.COMPLETED:
            return self.total_bytes
        return sum(each.completed for each in self.progress if each) or self.plan.present_bytes

    @property
    def total_bytes(self) -> int:
        """Of all files, as far as they are known."""
        sizes = zip(self.plan.files, self.progress, strict=True)
        return sum(file.size or (each and each.total) or 0 for file, each in sizes)

    @property
    def is_active(self) -> bool:
        """Whether something goes on, or will when it is its turn."""
        return self.status in ACTIVE

    @property
    def stored(self) -> StoredDownload:
        """What is kept of it."""
        return StoredDownload(
            self.id, self.plan, self.engine, self.status, self.started_ms, self.ended_ms, self.error
        )

    def note(self, said: FileProgress, now: float) -> None:
        """A file goes on."""
        if said.file < len(self.progress):
            self.progress[said.file] = said
            self.speed.note(now, self.completed_bytes)
            self.note_change()

    def note_change(self) -> None:
        """Tell those who wait for something new."""
        self.changed.set()
        self.changed = asyncio.Event()
