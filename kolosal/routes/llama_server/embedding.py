"""`POST /embedding`: vectors in llama-server's own shape."""

from __future__ import annotations

from typing import ClassVar

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.unary import embed_all
from kolosal.errors import InvalidRequest
from kolosal.http.decode import decode
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.body import NeutralValues, OpenBody, optional_model
from kolosal.routes.common.fields import ModelName
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.common.unary_calls import with_engine
from kolosal.routes.openai.embeddings import Input, numbers, prompts_of


class NativeEmbeddingBody(OpenBody):
    """Texts to make vectors of."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"embd_normalize": (2,), "encoding_format": ("float",)}

    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the only one."""
    content: Input | None = None
    """A string, an array of strings, an array of tokens, or an array of such arrays. Required."""
    input: Input | None = None
    """Another name for `content`, which wins."""


class NativeEmbedding(TypedDict):
    """The vector of one input."""

    index: int
    embedding: list[list[float]]
    """One vector of length 1: the input's tokens are pooled."""


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=NativeEmbeddingBody,
    example={"content": "Hello"},
    answer="A vector of length 1 for each input, in their order.",
)
async def embed_natively(request: Request) -> JsonResponse[list[NativeEmbedding]]:
    """Make a vector of each text, in llama-server's own shape."""
    body = await decode(request, NativeEmbeddingBody)
    body.refuse_unsupported()
    given: Input | None = body.input if body.content is None else body.content
    if given is None:
        raise InvalidRequest("Missing required field: content", param="content")
    prompts = prompts_of(given)
    model = optional_model(registry_of(request), body.model)
    embedded = await with_engine(request, model, lambda engine: embed_all(engine, prompts, None))
    return await in_thread_if_large(sum(map(len, embedded.vectors)), lambda: _response(embedded.vectors))


def _response(vectors: tuple[str, ...]) -> JsonResponse[list[NativeEmbedding]]:
    return JsonResponse(
        [{"index": index, "embedding": [numbers(vector)]} for index, vector in enumerate(vectors)]
    )
