"""`keep_alive` in all its forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.errors import InvalidRequest
from kolosal.models.durations import MAX_KEEP_ALIVE_S
from kolosal.routes.ollama.keep_alive import keep_alive_seconds
from tests.fakes import FakeEngine, says
from tests.routes.ollama.asking import generate, refused


@pytest.mark.parametrize(
    ("given_as", "seconds"),
    [
        (None, None), ("", None), (0, 0), (-1, -1), (-0.5, -1), (300, 300), (1.5, 1.5), ("0", 0), ("5m", 300), ("24h", 86_400),
        ("1h30m", 5400), ("-1m", -1), ("-1", -1), ("1.5h", 5400), (".5s", 0.5), ("500ms", 0.5), ("+2s", 2), ("1m0.5s", 60.5),
        (1e300, MAX_KEEP_ALIVE_S), ("99999999h", MAX_KEEP_ALIVE_S), ("9" * 60, MAX_KEEP_ALIVE_S), (" 5m ", 300), ("250ms", 0.25),
    ],
)  # fmt: skip
def test_every_form_is_read(given_as: str | float | None, seconds: float | None) -> None:
    assert keep_alive_seconds(given_as) == seconds


@pytest.mark.parametrize(
    "text", ["5x", "m", "5 m", "1h-5m", "five", "\u0665m", "1e3s", "--1s", ".", "m5", "nan", "inf"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="keep_alive must be a number of seconds or a duration"):
        keep_alive_seconds(text)


@given(st.text("0123456789.+-hmsnuµ ", max_size=64))
def test_any_text_is_a_duration_or_is_refused(text: str) -> None:
    try:
        seconds = keep_alive_seconds(text)
    except InvalidRequest:
        return
    assert seconds is None or seconds == -1 or 0 <= seconds <= MAX_KEEP_ALIVE_S


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_hours_minutes_and_seconds_add_up(hours: int, minutes: int, seconds: int) -> None:
    total = keep_alive_seconds(f"{hours}h{minutes}m{seconds}s")
    assert total is not None
    assert math.isclose(total, hours * 3600 + minutes * 60 + seconds)


async def test_a_request_with_another_text_is_refused() -> None:
    engine = FakeEngine(script=says("a"))
    status, error = await refused(engine, "/api/generate", prompt="a", keep_alive="5 years")
    assert (status, error.split()[0]) == (400, "keep_alive")
    assert not engine.requests


@pytest.mark.parametrize("value", ["5m", -1, 300, None])
async def test_a_model_that_is_to_stay_stays(value: object) -> None:
    engine = FakeEngine(script=says("a"))
    assert (await generate(engine, prompt="a", keep_alive=value))["response"] == "a"
    assert engine.state == "ready"
