"""Text of a terminal: what is piped in, and facts as people read them. Pure but for `show_table`, which prints."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from datetime import UTC, datetime

import typer

_UNPRINTABLE = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_UNITS_S = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def printable(text: str) -> str:
    """Without control characters: a model's text must not move the cursor or retitle the window."""
    return text.translate(_UNPRINTABLE)


def show_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns of plain text, as wide as they must be, so that they can be searched and cut."""
    rows = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ago(now: datetime, then: datetime) -> str:
    """`3 min ago`. A clock that runs behind the daemon's gives `just now`."""
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = int((now - then).total_seconds())
    for size, unit in _UNITS_S:
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return "just now"


def duration(seconds: float) -> str:
    """`4 min 51 s`: the two largest units that are not 0. Less than a second is rounded up."""
    left = max(round(seconds), 1) if seconds > 0 else 0
    parts = []
    for size, unit in _UNITS_S:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def size(n_bytes: int) -> str:
    """`604 MiB`, from a GiB on with one decimal."""
    if n_bytes < 1 << 20:
        return f"{n_bytes / 1024:.0f} KiB" if n_bytes >= 1024 else f"{n_bytes} bytes"
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 1 << 30 else f"{n_bytes / 2**20:.0f} MiB"


def decode_piped(data: bytes, system_encoding: str) -> str:
    """UTF-16 where a mark says so, UTF-8 where it is valid, else what the system's programs write; never an error.

    On Windows the system's encoding is a code page, while git and PowerShell 7 write UTF-8.
    """
    if data.startswith(_UTF16_MARKS):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode(system_encoding, "replace")
    return text.replace("\r\n", "\n")
