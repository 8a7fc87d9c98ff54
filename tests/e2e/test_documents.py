"""Files and vector stores through the official client, over a tiny model that makes embeddings."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import pytest
from gguf import PoolingType

from tests.e2e.helpers import add_engine
from tests.retrieval.documents import pdf, word
from tests.tiny_gguf import write_tiny_embedder

pytestmark = pytest.mark.model

QUESTION = "How many days of holiday are there?"
"""A text is nearest to itself, whatever a model of random weights thinks of it."""


@pytest.fixture(autouse=True)
def _embedder(http: httpx.Client, tmp_path: Path) -> None:
    write_tiny_embedder(tmp_path / "embed.gguf", "bert", PoolingType.MEAN)
    add_engine(http, "embedder", tmp_path / "embed.gguf")


def test_files_are_uploaded_searched_and_deleted(sdk: openai.OpenAI) -> None:
    store = sdk.vector_stores.create(name="Handbook", metadata={"for": "all"})
    batch = sdk.vector_stores.file_batches.upload_and_poll(
        store.id,
        files=[
            ("question.md", QUESTION.encode()),
            ("long.txt", b"All else is said here, over and over. " * 100),
            ("travel.pdf", pdf("Trains come before planes.")),
            ("rules.docx", word("Be on time.")),
        ],
    )
    added = sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("more.html", b"<p>More"))
    page = sdk.vector_stores.search(store.id, query=QUESTION, max_num_results=3)
    found = page.data

    assert (batch.status, batch.file_counts.completed) == ("completed", 4)
    assert added.status == "completed"
    assert (found[0].filename, found[0].content[0].text) == ("question.md", QUESTION)
    assert found[0].score == pytest.approx(1, abs=1e-3)
    assert len(found) == 3
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)

    assert sdk.vector_stores.retrieve(store.id).file_counts.completed == 5
    assert len([*sdk.vector_stores.files.list(store.id, limit=2)]) == 5  # in three pages
    content = sdk.vector_stores.files.content(added.id, vector_store_id=store.id)
    assert [each.text for each in content] == ["More"]
    assert sdk.files.content(found[0].file_id).read() == QUESTION.encode()
    sdk.files.delete(found[0].file_id)
    left = sdk.vector_stores.search(store.id, query=QUESTION, max_num_results=50)
    assert "question.md" not in {each.filename for each in left}
    assert sdk.vector_stores.delete(store.id).deleted
    for file in sdk.files.list():
        assert sdk.files.delete(file.id).deleted


def test_filters_choose_files(sdk: openai.OpenAI) -> None:
    store = sdk.vector_stores.create()
    for year in (2025, 2026):
        file = sdk.files.create(file=(f"{year}.txt", f"{QUESTION} {year}".encode()), purpose="assistants")
        sdk.vector_stores.files.create_and_poll(
            file.id, vector_store_id=store.id, attributes={"year": year, "draft": False}
        )
    found = sdk.vector_stores.search(
        store.id, query=QUESTION, filters={"type": "gt", "key": "year", "value": 2025}
    )

    assert [each.filename for each in found] == ["2026.txt"]


def test_picture_is_refused_with_the_reason(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="it is not text in UTF-8") as error:
        sdk.files.create(file=("a.png", b"\x89PNG\r\n"), purpose="assistants")
    assert (error.value.code, error.value.param) == ("unsupported_file", "file")
