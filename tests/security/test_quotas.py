"""Quotas: counted by the windows of the clock, a key's own before those of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.errors import QuotaExceeded
from kolosal.security.keys import ApiKey, KeyFile, KeyLimits, plain_key
from kolosal.security.quotas import Quotas

DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.now = 20_000.0 * DAY + 30

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key_of(name: str, limits: KeyLimits | None = None) -> ApiKey:
    made = plain_key(f"{name}-of-these-tests", name)
    return ApiKey(id=made.id, name=name, scopes=made.scopes, sha256=made.sha256, created=None, limits=limits)


def test_a_minute_ends_with_the_minute(clock: Clock) -> None:
    quotas = Quotas(KeyLimits(requests_per_minute=2), clock)
    one, other = key_of("one"), key_of("other")
    quotas.take(one)
    quotas.take(one)
    with pytest.raises(
        QuotaExceeded, match="its 2 requests a minute: the next minute begins at 2024-10-04T00:01:00Z"
    ) as told:
        quotas.take(one)
    assert told.value.retry_after_s == 30
    quotas.take(other)
    clock.now += 30
    quotas.take(one)


def test_a_day_ends_at_midnight_and_tokens_count_when_they_are_used(clock: Clock) -> None:
    quotas = Quotas(KeyLimits(tokens_per_day=100), clock)
    one = key_of("one")
    quotas.take(one)
    quotas.spent(one.id, 99)
    quotas.take(one)
    quotas.spent(one.id, 50)
    with pytest.raises(QuotaExceeded, match="100 tokens a day") as told:
        quotas.take(one)
    assert told.value.retry_after_s == DAY - 30
    clock.now += DAY
    quotas.take(one)


def test_a_keys_own_limits_win(clock: Clock) -> None:
    quotas = Quotas(KeyLimits(requests_per_minute=1, tokens_per_day=5), clock)
    free = key_of("free", KeyLimits(requests_per_minute=0))
    for _ in range(5):
        quotas.take(free)
    quotas.spent(free.id, 5)
    with pytest.raises(QuotaExceeded, match="5 tokens a day"):  # of which it has none of its own
        quotas.take(free)
    [use] = quotas.use((free,))
    assert (use.key, use.kind, use.window, use.used, use.limit) == ("free", "tokens", "day", 5, 5)


def test_what_is_remembered_is_bounded(clock: Clock) -> None:
    quotas = Quotas(KeyLimits(requests_per_day=1), clock)
    for number in range(5000):
        quotas.spent(f"key_{number}", 1)
    assert len(quotas._used) <= 4000


def test_limits_are_kept_in_the_file_and_older_files_are_read(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.create("plain", ())
    file.create("limited", (), KeyLimits(tokens_per_day=7))
    assert [key.limits for key in file.read()] == [None, KeyLimits(tokens_per_day=7)]
    assert '"limits"' not in file.path.read_text(encoding="utf-8").partition("limited")[0]
