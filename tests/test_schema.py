from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import annotated_types as at
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.sampling import MAX_STOP_CHARS, MAX_STOP_STRINGS, SamplingParams
from kolosal.schema import FinishReason, Message, TokenDelta, Usage

SAMPLING = TypeAdapter(SamplingParams)
LOADING = TypeAdapter(LoadingParameters)
CONFIG = TypeAdapter(EngineConfig)

BOUNDS: list[tuple[str, float, float]] = [
    ("temperature", 0, 5),
    ("min_p", 0, 1),
    ("top_k", -1, 1_000_000),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("repeat_last_n", -1, 1_000_000),
    ("seed", -(2**63), 2**63 - 1),
    ("max_tokens", 0, 1_000_000),
]


@pytest.mark.parametrize(("name", "low", "high"), BOUNDS)
def test_bounds_themselves_are_allowed(name: str, low: float, high: float) -> None:
    assert [getattr(SAMPLING.validate_python({name: value}), name) for value in (low, high)] == [low, high]


@pytest.mark.parametrize(("name", "low", "high"), BOUNDS)
@pytest.mark.parametrize("beyond", [-1, 1])
def test_value_beyond_its_bounds_is_refused(name: str, low: float, high: float, beyond: int) -> None:
    with pytest.raises(ValidationError):
        SAMPLING.validate_python({name: low - 1 if beyond < 0 else high + 1})


@pytest.mark.parametrize(
    "name", ["temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty"]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_value_that_is_no_number_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        SAMPLING.validate_python({name: value})


@pytest.mark.parametrize(
    "stop",
    [("x" * (MAX_STOP_CHARS + 1),), ("x",) * (MAX_STOP_STRINGS + 1)],
    ids=["long", "many"],
)
def test_stop_strings_out_of_bounds_are_refused(stop: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        SAMPLING.validate_python({"stop": stop})


def bounded(hint: Any) -> bool:
    """Whether every number, list and pattern in a type has an upper bound."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        constraints = [
            c for mark in marks for c in (mark.metadata if isinstance(mark, FieldInfo) else [mark])
        ]
        if any(isinstance(c, at.Le | at.Lt | at.MaxLen) for c in constraints):
            return all(bounded(part) for part in get_args(inner) if part is not ...)
        return bounded(inner)
    if get_origin(hint) is tuple and ... not in get_args(hint):
        return all(bounded(part) for part in get_args(hint))
    if hint in (int, float) or get_origin(hint) in (tuple, list, dict):
        return False
    return all(bounded(part) for part in get_args(hint) if isinstance(part, type) or get_origin(part))


@pytest.mark.parametrize("cls", [SamplingParams, LoadingParameters])
def test_every_number_and_list_has_an_upper_bound(cls: type) -> None:
    """CVE-2026-34756 and its like: one unbounded number of one request ends a server."""
    hints = get_type_hints(cls, include_extras=True)

    assert [name for name, hint in hints.items() if not bounded(hint)] == []


def test_requests_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Message("user", "x").content = "y"  # type: ignore[misc]


# --- loading parameters ---


def test_unknown_loading_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="n_ctxx"):
        LOADING.validate_python({"n_ctxx": 5})


def test_pool_smaller_than_the_window_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValidationError, match=r"at least n_ctx \(100\), but is 99"):
        LOADING.validate_python({"n_ctx": 100, "kv_pool_tokens": 99})


@pytest.mark.parametrize("value", [-1, 1_000_001, "many", 1.5, None])
def test_window_out_of_bounds_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        LOADING.validate_python({"n_ctx": value})


def test_batching_cannot_be_turned_off() -> None:
    with pytest.raises(ValidationError):
        LOADING.validate_python({"cont_batching": False})


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        ".",
        "..",
        "a/..",
        "./a",
        "a/../b",
        "a\\b",
        "a?b",
        "a#b",
        "a\nb",
        "a\0b",
        "a\x7fb",
        "x" * 257,
        "a\n",
    ],
)
def test_engine_name_that_does_not_fit_into_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        CONFIG.validate_python({"engine_id": name, "model_path": "m", "parameters": {}})


@pytest.mark.parametrize("name", ["a", "Llama 3.2:1b", "qwen2.5@latest", "模型", "x" * 256])
def test_engine_name_may_be_what_people_write(name: str) -> None:
    assert CONFIG.validate_python({"engine_id": name, "model_path": "m", "parameters": {}}).engine_id == name


# --- deltas and usage ---

deltas = st.builds(TokenDelta, st.text(max_size=5), st.lists(st.integers(), max_size=3).map(tuple))


@given(deltas, deltas, deltas)
def test_merging_does_not_depend_on_the_order_of_merges(a: TokenDelta, b: TokenDelta, c: TokenDelta) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


def test_merged_delta_ends_as_the_later_one_does() -> None:
    end = TokenDelta("b", (2,), FinishReason.STOP, Usage(1, 2))

    assert TokenDelta("a", (1,)).merge(end) == TokenDelta("ab", (1, 2), FinishReason.STOP, Usage(1, 2))


def test_usages_add_up() -> None:
    assert Usage(1, 2, 3) + Usage(10, 20, 30) == Usage(11, 22, 33)


def test_total_is_prompt_and_completion() -> None:
    assert Usage(1, 2, cached_tokens=1).total_tokens == 3
