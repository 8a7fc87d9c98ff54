"""Fetching one file whole: what is there goes on, what comes is verified, and only then it gets its name. Blocking.

The one downloader: for Hugging Face's hub, for Ollama's registry and for files anywhere.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from kolosal.downloads.address import parse_url
from kolosal.downloads.net import Reach, Response, Secret, get
from kolosal.downloads.part import PartFile
from kolosal.downloads.plan import NO_VALIDATOR, PlannedFile
from kolosal.errors import DownloadFailed, Forbidden, NotFound

log = logging.getLogger(__name__)

TRIES = 6
"""Connections in a row that bring nothing."""
PAUSES_S = (0.2, 1.0, 3.0, 8.0, 20.0)
"""Before each further one."""
MAX_PAUSE_S = 120.0
"""The longest that a server may ask to wait."""
MAX_BYTES = 1 << 46
"""Of one file."""

_BUFFER_BYTES = 256 * 1024
_BUFFERS = 8
"""In memory at a time, whatever the size of the file: one is filled while others are digested."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What a fetcher is told meanwhile. Called often, from the thread that fetches."""

    progress: Callable[[int, int | None], None] = lambda _bytes, _total: None
    """Bytes that are there, and how many it will be."""
    verifying: Callable[[], None] = lambda: None


def fetch(
    file: PlannedFile,
    reach: Reach,
    secret: Secret | None = None,
    report: FetchReport | None = None,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Have a file, whole and verified, under its name. Does nothing where it is there.

    Raises:
        DownloadFailed: the server cannot be reached, or gives something else. What came is kept where it may be of use.
        StorageFull: the disk has no room.
        InvalidRequest: the server may not be asked.
        OSError: the disk does not take it.
    """
    path = Path(file.path)
    report = report or FetchReport()
    if _is_there(path, file.size):
        report.progress(path.stat().st_size, file.size)
        return
    part = PartFile(path, file.etag)
    try:
        if _is_there(path, file.size):  # another process was faster
            return
        transfer = _Transfer(file, part, reach, secret, report)
        try:
            transfer.run(pause)
        finally:
            transfer.digest.close()
        _verify(file, part, transfer, report)
        part.finish()
    finally:
        part.close()


def _is_there(path: Path, size: int | None) -> bool:
    """Only whole files have final names, so that the size is enough to ask."""
    return path.is_file() and (size is None or path.stat().st_size == size)


class _Transfer:
    """The bytes of one file, over as many connections as that takes."""

    def __init__(
        self, file: PlannedFile, part: PartFile, reach: Reach, secret: Secret | None, report: FetchReport
    ) -> None:
        self._file = file
        self._part = part
        self._reach = reach
        self._secret = secret
        self._report = report
        self._url = parse_url(file.url)
        self.size = file.size
        """What the file will have; None while nobody has said it."""
        self.digest = _Digest(is_wanted=file.sha256 is not None)

    def run(self, pause: Callable[[float], None]) -> None:
        """Until all is there."""
        if self.size is not None and self._part.size > self.size:
            self._part.restart()
        self._digest_part()
        tries = 0
        while self.size is None or self._part.size < self.size or not self._part.size:
            before = self._part.size
            try:
                self._connect()
                if self.size == self._part.size:
                    return
                raise DownloadFailed.for_now(f"{self._url.authority} ended the answer early")
            except DownloadFailed as exc:
                if not exc.passes:
                    raise
                tries = 1 if self._part.size > before else tries + 1
                if tries >= TRIES:
                    raise
                usual_s = PAUSES_S[min(tries, len(PAUSES_S)) - 1]
                wait_s = usual_s if exc.retry_after_s is None else exc.retry_after_s
                log.info("download.retry", extra={"file": self._file.name, "reason": exc.message})
                pause(min(wait_s, MAX_PAUSE_S))

    def _digest_part(self) -> None:
        offset = 0
        while offset < self._part.size and self.digest.is_wanted:
            buffer = self.digest.buffer()
            count = self._part.read_from(offset, buffer)
            self.digest.add(buffer, count)
            offset += count
        if offset:
            self._report.progress(self._part.size, self.size)

    def _connect(self) -> None:
        if self._file.etag == NO_VALIDATOR:
            self._restart()
        have = self._part.size
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self._file.etag is not None:
            headers["If-Range"] = self._file.etag
        with get(self._url, self._reach, headers, self._secret) as response:
            self._begin(response, have)
            self._receive(response)

    def _begin(self, response: Response, have: int) -> None:
        """Judge the status, and make sure of where the bytes belong."""
        total = _length(response)
        if response.status == 206 and have:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if found is None or int(found[1]) != have:
                self._restart()
                raise DownloadFailed.for_now(
                    f"{response.url.authority} sent another part than it was asked for"
                )
            total = None if found[2] == "*" else int(found[2])
        elif response.status == 200:
            if have:  # it knows no ranges, or the file is another one
                self._restart()
        elif response.status == 416:
            self._restart()
            raise DownloadFailed.for_now(f"{response.url.authority} has no such part of the file")
        else:
            raise _refusal(response, self._file.name)
        if self.size is not None and total is not None and total != self.size:
            raise DownloadFailed(
                f"{response.url.authority} has {self._file.name} with {total} bytes, and it should have {self.size}"
            )
        self.size = total if self.size is None else self.size
        if self.size is None or self.size > MAX_BYTES:
            raise DownloadFailed(
                f"{response.url.authority} does not say how long {self._file.name} is, or it is longer than {MAX_BYTES} bytes"
            )
        self._part.reserve(self.size)

    def _restart(self) -> None:
        self._part.restart()
        self.digest.restart()

    def _receive(self, response: Response) -> None:
        assert self.size is not None  # noqa: S101 - for mypy: `_begin` has seen to it
        count = -1
        while count and self._part.size < self.size:
            buffer, count = self.digest.buffer(), 0
            try:
                count = response.read_into(buffer)
                if self._part.size + count > self.size:
                    raise DownloadFailed(f"{response.url.authority} sends more than {self.size} bytes")
                self._part.write(memoryview(buffer)[:count])
            finally:
                self.digest.add(buffer, count)
            self._report.progress(self._part.size, self.size)


class _Digest:
    """SHA-256 in a thread of its own: digesting takes longer than receiving, and both can go on at once."""

    def __init__(self, *, is_wanted: bool) -> None:
        self.is_wanted = is_wanted
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(bytearray(_BUFFER_BYTES))
        self._full: SimpleQueue[tuple[bytearray, int] | None] = SimpleQueue()
        self._sha256 = hashlib.sha256()
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        if is_wanted:
            self._thread.start()

    def buffer(self) -> bytearray:
        """One that nobody uses. Waits for it."""
        return self._free.get()

    def add(self, buffer: bytearray, count: int) -> None:
        """So many bytes more; the buffer is free again when they are digested."""
        if self.is_wanted and count:
            self._full.put((buffer, count))
        else:
            self._free.put(buffer)

    def restart(self) -> None:
        """Forget what there was."""
        self._wait()
        self._sha256 = hashlib.sha256()

    def result(self) -> str:
        """In hexadecimal digits, once all is digested."""
        self._wait()
        return self._sha256.hexdigest()

    def _wait(self) -> None:
        """Until all buffers are free again, that is, until nothing is left to digest."""
        buffers = [self._free.get() for _ in range(_BUFFERS)]
        for each in buffers:
            self._free.put(each)

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._full.put(None)

    def _run(self) -> None:
        while (item := self._full.get()) is not None:
            buffer, count = item
            self._sha256.update(memoryview(buffer)[:count])
            self._free.put(buffer)


def _verify(file: PlannedFile, part: PartFile, transfer: _Transfer, report: FetchReport) -> None:
    if file.sha256 is None:
        return
    report.verifying()
    found = transfer.digest.result()
    if found != file.sha256:
        part.restart()  # whatever it is, it is of no use
        raise DownloadFailed(
            f"{file.name} is not what it should be: its digest is sha256:{found}, and sha256:{file.sha256} was announced"
        )


def _length(response: Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _refusal(response: Response, name: str) -> Exception:
    """The error for a status that is no success."""
    where, status = response.url.authority, response.status
    if status in _BUSY:
        return DownloadFailed.for_now(f"{where} answered HTTP {status} for {name}", _retry_after(response))
    if status in (401, 403):
        return Forbidden(f"{where} does not let us have {name} (HTTP {status})")
    if status in (404, 410):
        return NotFound(f"{where} has no {name} (HTTP {status})", param="source")
    return DownloadFailed(f"{where} answered HTTP {status} for {name}")


def _retry_after(response: Response) -> int | None:
    text = response.headers.get("retry-after", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None
