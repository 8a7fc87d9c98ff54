"""How much a JSON text holds is counted as a parser would see it, whatever its strings hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.errors import InvalidRequest
from kolosal.http import bulk
from kolosal.http.bulk import MAX_STRUCTURES, MAX_VALUES, check_bulk

COST = MAX_VALUES // MAX_STRUCTURES


def is_refused(body: bytes) -> bool:
    try:
        check_bulk(body)
    except InvalidRequest:
        return True
    return False


@pytest.mark.fault("H7")
@pytest.mark.parametrize("unit", ["[]", "{}", '{"a":1}', '[[["x"]]]'])
def test_structures_are_counted(unit: str) -> None:
    n_each = sum(unit.count(sign) for sign in "[{:")
    few, many = MAX_STRUCTURES // n_each // 2, MAX_STRUCTURES // n_each + 1
    assert not is_refused(f"[{','.join([unit] * few)}]".encode())
    assert is_refused(f"[{','.join([unit] * many)}]".encode())


@pytest.mark.fault("H7")
@pytest.mark.parametrize(("unit", "cost"), [("0", 1), ('""', 2), ("null", 1)])
def test_values_are_counted(unit: str, cost: int) -> None:
    fits = MAX_VALUES // cost - 2 * COST
    assert not is_refused(f"[{','.join([unit] * fits)}]".encode())
    assert is_refused(f"[{','.join([unit] * (fits + 4 * COST))}]".encode())


@pytest.mark.parametrize("text", [
    "[{,:" * 1_000_000, '"' * 1_000_000, "\\" * 1_000_000, '\\",[' * 500_000, "\n" * 1_000_000, "é" * 1_000_000,
])  # fmt: skip
def test_what_a_text_holds_does_not_count(text: str) -> None:
    assert not is_refused(json.dumps({"messages": [{"role": "user", "content": text}]}).encode())


@pytest.mark.parametrize("body", [b'"' * 1_000_000, b'"\\', b'"' + b"\\" * 999_999, b'"' + b'\\"' * 500_000])
def test_what_is_no_json_comes_to_an_end(body: bytes) -> None:
    is_refused(body + b" " * 20_000)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


def _cost(value: object) -> int:
    """What a value costs by the rules, found from the value and not from its text."""
    match value:
        case str():
            return 1
        case list():
            return COST + max(0, len(value) - 1) + sum(map(_cost, value))
        case dict():
            return COST + max(0, len(value) - 1) + sum(COST + 1 + _cost(item) for item in value.values())
        case _:
            return 0


@given(value=_VALUES, pretty=st.booleans())
def test_the_count_is_exact(value: object, pretty: bool) -> None:
    body = json.dumps(value, ensure_ascii=False, indent=2 if pretty else None).encode("utf-8", "replace")
    cost = _cost(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "_NEVER_MANY_BYTES", 0)
        patch.setattr(bulk, "MAX_VALUES", cost)
        assert not is_refused(body)
        patch.setattr(bulk, "MAX_VALUES", cost - 1)
        assert is_refused(body)
