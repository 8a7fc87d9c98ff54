"""A streamed HTTP/1.1 answer, read as it arrives with as little work as possible.

Owns response heads, chunked transfer and the data of server-sent events. A general HTTP client, and httpx-sse above it, cost more
processor time per token than the server under test may spend on it, and both run on the same machine.
"""

from __future__ import annotations

from kolosal.bench.errors import BenchError

MAX_BUFFER_BYTES = 16 * 1024 * 1024
"""Bytes of one line, chunk or head that is not complete yet; more is no answer to us."""


class StreamReader:
    """Bytes of one response in, data of its events out. Not thread-safe; raises BenchError on what is not HTTP."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.finished = False
        """The body's own end was seen."""
        self.body = bytearray()
        """The bytes of a body that is an error; events are not kept."""
        self._raw = bytearray()
        self._chunked = False
        self._line = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event line that `data` completed."""
        self._raw += data
        if self.status is None and not self._read_head():
            return []
        body = self._unchunk() if self._chunked else bytes(self._raw)
        if not self._chunked:
            self._raw.clear()
        if self.status != 200:
            self.body += body
            return []
        *lines, self._line = (self._line + body).split(b"\n")
        self._bound(len(self._line))
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]

    def _read_head(self) -> bool:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            self._bound(len(self._raw))
            return False
        first, *fields = bytes(self._raw[:end]).split(b"\r\n")
        words = first.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise BenchError("what answers at this address does not speak HTTP/1.1")
        self.status = int(words[1])
        self._chunked = any(
            field.lower().startswith(b"transfer-encoding:") and b"chunked" in field.lower()
            for field in fields
        )
        del self._raw[: end + 4]
        return True

    def _unchunk(self) -> bytes:
        """The body in all chunks that are complete."""
        body = bytearray()
        while (end := self._raw.find(b"\r\n")) >= 0:
            try:
                size = int(bytes(self._raw[:end]).partition(b";")[0], 16)
            except ValueError:
                raise BenchError("the server sent a malformed chunk") from None
            if size == 0:
                self.finished = True
                break
            if len(self._raw) < end + size + 4:
                self._bound(size)
                break
            body += self._raw[end + 2 : end + 2 + size]
            del self._raw[: end + size + 4]
        return bytes(body)

    @staticmethod
    def _bound(size: int) -> None:
        if size > MAX_BUFFER_BYTES:
            raise BenchError("the server sent more than 16 MiB in one piece")
