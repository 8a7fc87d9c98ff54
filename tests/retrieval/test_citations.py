from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kolosal.retrieval.citations import (
    Citation,
    CitationReader,
    FoundText,
    citations_of,
    marker,
    results_for_model,
    unasked_markers,
)

CATS = FoundText("file-1", "cats.md", 0.9, "Cats sleep sixteen hours a day.")
DOGS = FoundText("file-2", "do【gs】.md", 0.5, "Dogs bark at strangers.")


def test_model_reads_each_result_under_its_marker() -> None:
    shown = results_for_model([CATS, DOGS])

    assert shown.endswith(
        "【0†cats.md】\nCats sleep sixteen hours a day.\n\n【1†dogs.md】\nDogs bark at strangers."
    )
    assert results_for_model([]) == "The search found nothing."


def test_markers_in_an_answer_are_citations() -> None:
    answer = "They sleep【0†cats.md】 and bark【1:4†x】, but【7†no.md】 not【x】."
    found = citations_of(answer, [CATS, DOGS])

    assert found == [
        Citation("【0†cats.md】", 10, 21, "file-1"),
        Citation("【1:4†x】", 30, 37, "file-2"),
    ]
    assert all(answer[one.start : one.end] == one.text for one in found)


@given(st.lists(st.text(alphabet="【】†01:ab ", max_size=4)))
def test_an_answer_in_pieces_is_cited_as_the_whole_one_is(pieces: list[str]) -> None:
    answer, reader = "".join(pieces), CitationReader([CATS, DOGS])
    told = [part for piece in pieces for part in reader.push(piece)]

    texts = [part.text if isinstance(part, Citation) else part for part in told]
    assert "".join(texts) + reader.end() == answer
    found = [part for part in told if isinstance(part, Citation)]
    assert found == citations_of(answer, [CATS, DOGS])
    assert all(answer[each.start : each.end] == each.text for each in found)


def test_answer_without_markers_is_followed_by_those_of_the_results_whose_words_it_has() -> None:
    assert unasked_markers("Cats sleep a day.", [DOGS, CATS]) == " " + marker(1, "cats.md")


def test_answer_that_cites_or_is_from_elsewhere_is_followed_by_nothing() -> None:
    assert unasked_markers("Cats sleep【0†cats.md】", [CATS]) == ""
    assert unasked_markers("The weather is nice.", [CATS, DOGS]) == ""
    assert unasked_markers("", [CATS]) == ""


def test_each_file_is_cited_once_unasked() -> None:
    assert unasked_markers("Cats sleep.", [CATS, CATS]) == " " + marker(0, "cats.md")
