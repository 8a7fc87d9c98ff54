"""Durations, sizes and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kolosal.commands.text import ago, duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (0, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7300, "2 h ago"),
        (200_000, "2 d ago"),
    ],
)
def test_ago(seconds: int, text: str) -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    assert ago(now, now - timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (10.1, "10 s"),
        (300, "5 min"),
        (291.4, "4 min 51 s"),
        (7260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_461, "1 d 1 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (2048, "2 KiB"), (633_707_520, "604 MiB"), (1 << 30, "1.0 GiB"), (3 << 29, "1.5 GiB")],
)
def test_sizes(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text
