from __future__ import annotations

from typing import Any

import pytest

from kolosal.engines.ipc.calls import Rank, Ranked
from kolosal.errors import UnsupportedFeature
from kolosal.routes.llama_server.rerank import RerankBody
from tests.fakes import FakeEngine, app_with, http_client

BODY: dict[str, Any] = {"model": "fake", "query": "q", "documents": ["a", "long", "middle"]}


@pytest.fixture
def engine() -> FakeEngine:
    """Its scores are the lengths of the documents."""
    return FakeEngine()


async def rerank(engine: FakeEngine, path: str = "/v1/rerank", **fields: Any) -> tuple[int, dict[str, Any]]:
    async with http_client(app_with(engine)) as client:
        response = await client.post(path, json=BODY | fields)
    return response.status_code, response.json()


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking"])
async def test_documents_are_ranked_best_first(engine: FakeEngine, path: str) -> None:
    assert await rerank(engine, path) == (
        200,
        {
            "model": "fake",
            "object": "list",
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
            "results": [
                {"index": 2, "relevance_score": 6.0},
                {"index": 1, "relevance_score": 4.0},
                {"index": 0, "relevance_score": 1.0},
            ],
        },
    )
    assert engine.calls == [Rank("q", ("a", "long", "middle"))]


async def test_equals_keep_their_order(engine: FakeEngine) -> None:
    _, answer = await rerank(engine, documents=["b", "a", "c"])

    assert [row["index"] for row in answer["results"]] == [0, 1, 2]


async def test_only_the_best_are_told(engine: FakeEngine) -> None:
    _, answer = await rerank(engine, top_n=1)

    assert [row["index"] for row in answer["results"]] == [2]


async def test_more_than_there_are_is_all(engine: FakeEngine) -> None:
    _, answer = await rerank(engine, top_n=99)

    assert len(answer["results"]) == 3


async def test_documents_are_given_back_where_they_are_asked_for(engine: FakeEngine) -> None:
    _, answer = await rerank(engine, return_documents=True, top_n=1)

    assert answer["results"] == [{"index": 2, "relevance_score": 6.0, "document": {"text": "middle"}}]


async def test_document_may_be_an_object(engine: FakeEngine) -> None:
    await rerank(engine, documents=[{"text": "a", "title": "ignored"}, "b"])

    assert engine.calls == [Rank("q", ("a", "b"))]


async def test_long_documents_are_asked_about_in_several_questions(engine: FakeEngine) -> None:
    documents = ["x" * (400_000 + index) for index in range(5)]
    _, answer = await rerank(engine, documents=documents)

    assert [call.first for call in engine.calls if isinstance(call, Rank)] == [0, 2, 4]
    assert [row["index"] for row in answer["results"]] == [4, 3, 2, 1, 0]
    assert answer["usage"]["total_tokens"] == 15


async def test_model_that_does_not_rank_says_so(engine: FakeEngine) -> None:
    engine.answer = lambda _: UnsupportedFeature("This model cannot rank documents")
    status, answer = await rerank(engine)

    assert (status, answer["error"]["code"]) == (400, "unsupported_feature")


async def test_scores_may_be_negative(engine: FakeEngine) -> None:
    engine.answer = lambda _: Ranked((-3.0, -1.0, -2.0), 5)
    _, answer = await rerank(engine)

    assert [row["index"] for row in answer["results"]] == [1, 2, 0]


@pytest.mark.parametrize("name", RerankBody.UNSUPPORTED)
async def test_what_is_not_had_is_refused(engine: FakeEngine, name: str) -> None:
    field: dict[str, Any] = {name: 1}
    status, answer = await rerank(engine, **field)

    assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, name, "unsupported_feature")


async def test_missing_field_is_named(engine: FakeEngine) -> None:
    async with http_client(app_with(engine)) as client:
        response = await client.post("/rerank", json={"model": "fake"})

    assert response.json()["error"]["message"] == "Missing required fields (query, documents)"
