"""Reranking: which documents answer a query best, in the shape that Jina's and llama-server's clients know.

https://jina.ai/reranker, https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NotRequired, TypeAlias

from pydantic import Field
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import MAX_INPUTS, MAX_QUERY_CHARS, Rank, Ranked, portions
from kolosal.engines.unary import MAX_CALL_CHARS, unary_call
from kolosal.http.decode import RequestBody, decode
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.body import NeutralValues, OpenBody, optional_model
from kolosal.routes.common.fields import OBJECT, STRING, ModelName, Text, by_kind
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.common.unary_calls import with_engine
from kolosal.routes.openai.encode import PromptCounts


def routes() -> list[Route]:
    """The paths of this module."""
    paths = ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking")
    return [Route(path, rerank, methods=["POST"]) for path in paths]


class TextDocument(RequestBody):
    """A document as an object."""

    text: Text


Document: TypeAlias = Annotated[
    Annotated[Text, STRING] | Annotated[TextDocument, OBJECT], by_kind("a string or an object with a text")
]


class RerankBody(OpenBody):
    """Documents to rank."""

    MISSING = "Missing required fields (query, documents)"
    UNSUPPORTED: ClassVar[NeutralValues] = {
        "rank_fields": (["text"],),
        "max_chunks_per_doc": (),
        "max_tokens_per_doc": (),
        "return_embeddings": (False,),
    }

    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the only one."""
    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS)]
    """What the documents are to answer."""
    documents: Annotated[tuple[Document, ...], Field(min_length=1, max_length=MAX_INPUTS)]
    """Strings, or objects with a `text`."""
    top_n: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many results to give, the best; all unless given."""
    return_documents: bool | None = None
    """Whether each result holds its document; false unless given."""

    def texts(self) -> list[str]:
        """The documents' texts."""
        return [document if isinstance(document, str) else document.text for document in self.documents]


class RankedText(TypedDict):
    """The document of a result."""

    text: str


class RankedDocument(TypedDict):
    """One document's score."""

    index: int
    """Its place in the request."""
    relevance_score: float
    document: NotRequired[RankedText]


class Ranking(TypedDict):
    """Documents, the best first."""

    model: str
    object: Literal["list"]
    usage: PromptCounts
    results: list[RankedDocument]


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=RerankBody,
    example={
        "model": "tiny",
        "query": "What is a panda?",
        "documents": ["A bear of China", "A kind of bread"],
    },
    answer="`results`: `index` and `relevance_score` of each document, the best first.",
)
async def rerank(request: Request) -> JsonResponse[Ranking]:
    """Rank documents by how well they answer a query, with a model made for that."""
    body = await decode(request, RerankBody)
    body.refuse_unsupported()
    model, texts = optional_model(registry_of(request), body.model), body.texts()
    engine_id, ranked = await with_engine(request, model, lambda engine: _rank(engine, body.query, texts))
    order = sorted(range(len(texts)), key=lambda index: -ranked.scores[index])
    results: list[RankedDocument] = [
        {"index": index, "relevance_score": ranked.scores[index]} for index in order[: body.top_n]
    ]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    return JsonResponse(
        {
            "model": model or engine_id,
            "object": "list",
            "usage": {"prompt_tokens": ranked.n_tokens, "total_tokens": ranked.n_tokens},
            "results": results,
        }
    )


async def _rank(engine: Engine, query: str, texts: list[str]) -> tuple[str, Ranked]:
    """The engine's id, and all scores, in as many calls as it takes."""
    scores: tuple[float, ...] = ()
    n_tokens = 0
    for portion in portions([len(text) for text in texts], MAX_CALL_CHARS, MAX_INPUTS):
        part = await unary_call(engine, Rank(query, tuple(texts[portion]), first=portion.start), Ranked)
        scores += part.scores
        n_tokens += part.n_tokens
    return engine.engine_id, Ranked(scores, n_tokens)
