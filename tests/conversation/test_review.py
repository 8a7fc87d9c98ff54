"""Reading reviews as small models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.conversation.prompts import build_review_message
from kolosal.conversation.review import ReviewReader, Section, parse_review_sections

GOOD = "### Improvements\n1. Shorter.\n\n### Revised Answer\nThe new answer.\n\n### Comments\nFine."


def test_a_review_that_keeps_to_the_format() -> None:
    assert parse_review_sections(GOOD) == ("1. Shorter.", "The new answer.", "Fine.")


@pytest.mark.parametrize(
    "heading",
    [
        "### Revised Answer", "## revised answer", "###Revised Answer:", "**Revised Answer**", "**Revised Answer:**",
        "### **Revised Answer**", "### 2. Revised Answer", "  ### Revised  Answer  ", "Revised Answer:",
    ],
)  # fmt: skip
def test_headings_of_many_looks(heading: str) -> None:
    assert parse_review_sections(f"Sure!\n{heading}\nThe new answer.")[1] == "The new answer."


@pytest.mark.parametrize(
    ("review", "revision"),
    [
        ("", "None"),
        ("I like it.", "None"),
        ("### Revised Answer\n", "None"),
        ("### Revised Answer\nNone\n### Comments\nIt is good.", "None"),
        ("### Revised Answer\n**N/A**.", "None"),
        ("### Revised Answer\nNone of them is right.", "None of them is right."),
        ("### Revised Answer: All on one line.", "All on one line."),
        ("### Revised Answer\n\n### Comments\nGood.\n### Revised Answer\nLate, but here.", "Late, but here."),
        ("### Revised Answer\nFirst.\n### Comments\nGood.\n### Revised Answer\nSecond.", "First."),
        ("### Comments\nGood.\n### Revised Answer\nFirst.", "First."),
        ("### Revised Answer\n### Comments on style\nText.", "### Comments on style\nText."),
        ("### Revised Answer\nComments are good.\n```\n# x\n```", "Comments are good.\n```\n# x\n```"),
    ],
)
def test_what_a_revision_is(review: str, revision: str) -> None:
    assert parse_review_sections(review)[1] == revision


def test_the_revised_answer_is_shown_while_it_is_written() -> None:
    reader = ReviewReader()

    shown = [reader.push(piece) for piece in ("### Revised", " Answer\nA long enough", " beginning", " \n")]

    assert shown == ["", "A long enough", " beginning", ""]


@pytest.mark.parametrize("line", ["### Comments", "**", " ", "Comments", "### Revised Answer:", "#"])
def test_long_lines_of_blanks_take_no_time(line: str) -> None:
    """Half a million blanks: anything that tries twice where they end would take hours."""
    for blank in (" ", "*", "#", " *"):
        parse_review_sections(line + blank * 500_000 + "x")


PARTS = st.sampled_from(
    ["### Improvements", "### Revised Answer", "**Revised Answer:**", "### Comments", "Comments:", "\n", "\n\n", " ", "#",
     "None", "word ", "Comment", "1. ", "```\n", "a longer piece of text", "### Revised Answer: inline", "\t", "**", "é🤔"]
)  # fmt: skip


@given(st.lists(PARTS, max_size=30), st.data())
def test_pieces_of_any_size_show_just_the_revision(parts: list[str], data: st.DataObject) -> None:
    review = "".join(parts)
    reader, shown = ReviewReader(), ""
    while review:
        size = data.draw(st.integers(1, len(review)))
        shown += reader.push(review[:size])
        review = review[size:]
    shown += reader.end()

    assert shown == (reader.revision or "")
    assert parse_review_sections("".join(parts))[1] == reader.section(Section.REVISED)


def test_the_request_for_a_review_holds_all_it_must() -> None:
    message = build_review_message("Why is the sky blue?", "Because of the air.")

    for part in (
        "Why is the sky blue?",
        "Because of the air.",
        "five numbered",
        "not be shorter",
        "ellipsis",
        "code",
    ):
        assert part in message
    headings = [line for line in message.splitlines() if line.startswith("### ")]
    assert headings == ["### Improvements", "### Revised Answer", "### Comments"]
