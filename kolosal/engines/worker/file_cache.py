"""FileCache: moves saved sequences to files and back, in threads, so that no step waits for a disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path

from kolosal.engines.worker.saved_files import SavedFiles
from kolosal.engines.worker.schedule.saved_sequences import Saved, SavedSequences
from kolosal.files.deadline import NoAnswer, start


class FileCache:
    """One file at a time is written, and one is read. Used on the engine thread; what has ended comes there through `put`."""

    rest_s = 1.0
    """An idle engine writes what has been left alone for so long: a program's next turn comes at once."""
    busy_s = 10.0
    """One that always has work writes one conversation in so many seconds."""
    retry_s = 60.0
    """After a failure, a full disk for one, nothing is written for so long."""

    def __init__(
        self, files: SavedFiles, saved: SavedSequences, put: Callable[[partial[None]], None]
    ) -> None:
        self._files, self._saved, self._put = files, saved, put
        self._saved.keep_files(files.delete)
        self._writing: Future[Path | None] | None = None
        self._not_before = float("-inf")
        self.began_at = 0.0
        """When the last file was begun, on the loop's clock."""
        self.n_bytes = files.n_bytes
        """What the files of this kind take."""
        for each in files.scan():
            saved.found(each.tokens, each.scope, each.path)

    def may_write(self, now: float) -> bool:
        """Whether a file may be begun."""
        return self._writing is None and now >= self._not_before

    def write(self, saved: Saved, state: memoryview, now: float) -> None:
        """Begin to write an entry, which tells when it is `written`."""
        self.began_at = now
        saved.is_moving = True
        try:
            future = start(self._write, saved, state)
        except NoAnswer:
            self._note_written(saved, None)
            return
        self._writing = future
        future.add_done_callback(lambda _: self._put(partial(self._written, saved, future)))

    def _write(self, saved: Saved, state: memoryview) -> Path | None:
        path = self._files.write(saved.tokens, saved.scope, state)
        self.n_bytes = self._files.n_bytes
        return path

    def _written(self, saved: Saved, future: Future[Path | None]) -> None:
        self._writing = None
        self._note_written(saved, None if isinstance(future.exception(), OSError) else future.result())

    def _note_written(self, saved: Saved, path: Path | None) -> None:
        if path is None:
            self._not_before = self.began_at + self.retry_s
        self._saved.written(saved, path)

    def fetch(self, saved: Saved, fetched: Callable[[memoryview | None], None]) -> None:
        """Begin to read the file of an entry; `fetched` gets its state, None where there is none."""
        assert saved.path is not None  # noqa: S101 - else there is nothing to be read
        saved.is_moving = True
        try:
            future = start(self._files.read, saved.path)
        except NoAnswer:
            fetched(None)
            return
        future.add_done_callback(lambda _: self._put(partial(_give, future, fetched)))

    def write_now(self, saved: Saved, state: memoryview, now: float) -> None:
        """Write an entry before this process ends. Blocks."""
        self.began_at = now
        path = None
        with contextlib.suppress(OSError):
            path = self._files.write(saved.tokens, saved.scope, state)
        self._note_written(saved, path)

    def finish(self, seconds: float) -> None:
        """Wait for what is being written, but not for longer."""
        if self._writing is not None:
            wait([self._writing], max(0.0, seconds))


def _give(future: Future[memoryview | None], fetched: Callable[[memoryview | None], None]) -> None:
    fetched(future.result())
