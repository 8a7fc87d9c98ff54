"""Patterns of JSON schemas for llguidance: the same strings, or more."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.chat.json_schema.patterns import enforceable_pattern
from tests.chat.client_schemas import DATETIME, DURATION, EMAIL, UUID

SAME = (
    UUID, DATETIME, "^[a-z]+$", "a|b", "^(?:a|bc)*?d{2,3}$", r"^[\w.-]+@[^\s@]+$", r"^\/a\/$", "^[&~-]$", r"^\d+(?:[.,]\d+)?$", "^.{1,3}$",
    "", "^$", r"^[\u00e9\t]$", "^x{0,2}y+$", r"^(a(b(c)?)?)?$", r"^\{\}$", "^[^a-c\\]]$",
)  # fmt: skip


SPACES = r"\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
"""What `\\s` is in ECMAScript, whose regular expressions those of JSON Schema are. Python's has fewer of them, or others."""


@given(st.sampled_from(SAME), st.data())
def test_pattern_matches_the_same_strings(pattern: str, data: st.DataObject) -> None:
    """Python reads both."""
    found, exact = enforceable_pattern(pattern)
    pattern = pattern.replace(r"\s", SPACES)
    assert found is not None
    assert exact
    text = data.draw(st.from_regex(re.compile(pattern, re.ASCII)) | st.text("abcdxy.@-0129 é", max_size=6))
    text = re.sub(r"[\n\r\u2028\u2029]", "", text)  # Python's `$` and `.` mean others of these

    assert bool(re.search(found, text)) == bool(re.search(pattern, text, re.ASCII))


@given(st.sampled_from((EMAIL, DURATION, r"^(['\"])[a-z]*\1$", r"\bab\b", "^(?=a)ab?$", "^a{3000}b{3000}$", "^(?<n>a)\\k<n>$")), st.data())  # fmt: skip
def test_pattern_that_looks_around_or_back_matches_more(pattern: str, data: st.DataObject) -> None:
    found, exact = enforceable_pattern(pattern)
    assert found is not None
    assert not exact
    text = data.draw(
        st.from_regex(re.compile(pattern.replace("?<n>", "").replace("k<n>", "1"), re.ASCII), fullmatch=True)
    )

    assert re.search(found, text.removesuffix("\n"))


@pytest.mark.parametrize("pattern", ["[", "(", ")", "a**", "*", "[b-a]", "a{2,1}", "(?", "\\", "[]", "(" * 60 + ")" * 60, "a" * 3000, "(a" * 30 + ")\\1" * 30])  # fmt: skip
def test_what_is_no_pattern_or_too_much_is_not_enforced(pattern: str) -> None:
    found, exact = enforceable_pattern(pattern)

    assert not exact
    assert found is None or len(found) < 50_000


@given(st.text("ab\\(){}[]^$|?*+.,-0123dwsbBpLux<>=!:kAz", max_size=12))
def test_any_text_is_a_pattern_or_none(pattern: str) -> None:
    found, _ = enforceable_pattern(pattern)
    if found is not None and "\\p" not in found.lower():
        re.compile(found)
