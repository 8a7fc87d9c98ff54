"""JSON inside a request: written out again, unless it is nested too deeply."""

from __future__ import annotations

import pytest

from kolosal.errors import InvalidRequest
from kolosal.http.nesting import MAX_DEPTH, json_text


def _nested(levels: int) -> object:
    value: object = 1
    for level in range(levels):
        value = {"a": value} if level % 2 else [value, 2]
    return value


def test_a_value_is_written_as_json() -> None:
    assert json_text({"é": [1, None]}, "x") == '{"é":[1,null]}'
    assert json_text(_nested(MAX_DEPTH), "x").count("[") == MAX_DEPTH // 2


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 190])
def test_what_is_too_deep_is_refused_by_name(levels: int) -> None:
    with pytest.raises(InvalidRequest, match=r"tools\.0\.input_schema must be nested at most 100") as refused:
        json_text(_nested(levels), "tools.0.input_schema")
    assert refused.value.param == "tools.0.input_schema"


@pytest.mark.fault("H8")
@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**4000])
def test_an_integer_that_cannot_be_written_is_refused_by_name(number: int) -> None:
    with pytest.raises(InvalidRequest, match="format must hold integers of at most 64 bits") as refused:
        json_text({"a": [number]}, "format")
    assert refused.value.param == "format"
    assert json_text([2**64 - 1, -(2**63)], "format") == "[18446744073709551615,-9223372036854775808]"
