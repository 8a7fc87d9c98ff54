"""What a person sees of a download: what it will be, how far it is, and how large things are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What would be fetched."""

    source: str
    name: str
    total_bytes: int
    present_bytes: int
    free_bytes: int
    local_path: str
    comfortable: bool
    loadable: bool

    @property
    def missing_bytes(self) -> int:
        """What is still to come."""
        return max(0, self.total_bytes - self.present_bytes)

    @property
    def is_here(self) -> bool:
        """Whether all of it is on the disk."""
        return bool(self.total_bytes) and not self.missing_bytes

    @property
    def summary(self) -> str:
        """What it is, how large, and whether disk and memory take it."""
        here = f", {size(self.present_bytes)} of it here already" if self.present_bytes else ""
        memory = "" if self.comfortable else f". {self.memory_warning}"
        return (
            f"{self.source}: {size(self.total_bytes)}{here}; {size(self.free_bytes)} free on the disk{memory}"
        )

    @property
    def memory_warning(self) -> str:
        """What is wrong where memory is short."""
        if not self.loadable:
            return "It is larger than this machine's memory"
        return "It will take most of this machine's memory, or be slow"


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far it is."""

    completed: int
    total: int
    bytes_per_s: float
    model: str | None = None
    """What the model is called once it is there."""


def size(count: float) -> str:
    """A number of bytes as people write it: `4.92 GB`."""
    for unit, factor in _UNITS:
        if count >= factor:
            return f"{count / factor:.{2 if unit == 'GB' else 0}f} {unit}"
    return f"{count:.0f} bytes"


@contextmanager
def pull_progress(what: str) -> Iterator[Callable[[PullProgress], None]]:
    """A bar with bytes, speed and time left; a line for each tenth where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what.replace("[", r"\["), total=None)

        def show(progress: PullProgress) -> None:
            bar.update(task, total=progress.total or None, completed=progress.completed)

        yield show


def _plain(what: str) -> Callable[[PullProgress], None]:
    reached = -1

    def show(progress: PullProgress) -> None:
        nonlocal reached
        if reached < 0:  # what is there already is no progress
            reached = 10 * progress.completed // progress.total if progress.total else 0
        tenth = 10 * progress.completed // progress.total if progress.total else 0
        if tenth > reached:
            reached = tenth
            speed = f", {size(progress.bytes_per_s)}/s" if progress.bytes_per_s else ""
            typer.echo(f"{what}: {10 * tenth} % of {size(progress.total)}{speed}", err=True)

    return show
