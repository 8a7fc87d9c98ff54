from __future__ import annotations

import pytest

from kolosal.retrieval.filters import AttributeFilter as Attribute
from kolosal.retrieval.filters import AttributeValue, CombinedFilter, Filter, matches

FILE: dict[str, AttributeValue] = {"year": 2024.0, "author": "Ada", "draft": False}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Attribute("eq", "author", "Ada"), True),
        (Attribute("eq", "author", "ada"), False),
        (Attribute("ne", "author", "Bob"), True),
        (Attribute("ne", "missing", "Bob"), True),
        (Attribute("eq", "missing", "Bob"), False),
        (Attribute("eq", "draft", 0), False),
        (Attribute("eq", "year", 2024), True),
        (Attribute("gt", "year", 2023), True),
        (Attribute("gt", "year", 2024), False),
        (Attribute("gte", "year", 2024), True),
        (Attribute("lt", "year", 2025), True),
        (Attribute("lte", "year", 2023), False),
        (Attribute("gt", "author", 5), False),
        (Attribute("lt", "author", "Bob"), True),
        (Attribute("lt", "missing", 5), False),
        (Attribute("in", "author", ("Bob", "Ada")), True),
        (Attribute("nin", "author", ("Bob", "Ada")), False),
        (Attribute("nin", "missing", ("Bob",)), True),
    ],
    ids=str,
)
def test_attribute_is_compared(given: Filter, expected: bool) -> None:
    assert matches(given, FILE) is expected


def test_filters_are_combined() -> None:
    yes, no = Attribute("eq", "author", "Ada"), Attribute("eq", "author", "Bob")
    both, either = CombinedFilter("and", (yes, no)), CombinedFilter("or", (no, yes))

    assert not matches(both, FILE)
    assert matches(either, FILE)
    assert not matches(CombinedFilter("and", (both, either)), FILE)
