"""`POST /v1/embeddings`: texts as vectors, with any engine. https://platform.openai.com/docs/api-reference/embeddings/create"""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.ipc.calls import MAX_DIMENSIONS, MAX_INPUTS, Embedded
from kolosal.engines.unary import embed_all
from kolosal.http.decode import UNION_ERROR, decode
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.body import ModelBody, NeutralValues
from kolosal.routes.common.fields import Text
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.common.unary_calls import with_engine
from kolosal.routes.openai.encode import PromptCounts
from kolosal.sampling import TokenId
from kolosal.schema import TextPrompt, TokensPrompt

_MAX_INPUT_TOKENS = 131_072
"""Tokens of one input, before its engine says how many it takes."""


def _kind_of_input(value: object) -> str | None:
    """Discriminator of `input`. The tags never show in an error."""
    if isinstance(value, str):
        return "<text>"
    if not isinstance(value, list | tuple):
        return None
    match value[0] if value else "":
        case str():
            return "<texts>"
        case int() | float():
            return "<tokens>"
        case list() | tuple():
            return "<token lists>"
        case _:
            return None


_Text: TypeAlias = Annotated[Text, Field(min_length=1)]
_Tokens: TypeAlias = Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=_MAX_INPUT_TOKENS)]
_Many = Field(min_length=1, max_length=MAX_INPUTS)

Input: TypeAlias = Annotated[
    Annotated[_Text, Tag("<text>")]
    | Annotated[Annotated[tuple[_Text, ...], _Many], Tag("<texts>")]
    | Annotated[_Tokens, Tag("<tokens>")]
    | Annotated[Annotated[tuple[_Tokens, ...], _Many], Tag("<token lists>")],
    Discriminator(
        _kind_of_input,
        custom_error_type=UNION_ERROR,
        custom_error_message="a string, an array of strings, an array of tokens or an array of arrays of tokens",
    ),
]


class EmbeddingBody(ModelBody):
    """Texts to make vectors of."""

    MISSING = "Missing required fields (model, input)"
    UNSUPPORTED: ClassVar[NeutralValues] = {"embd_normalize": (2,), "truncate_prompt_tokens": ()}

    input: Input
    """A string, an array of strings, an array of tokens, or an array of such arrays."""
    encoding_format: Literal["float", "base64"] | None = None
    """How vectors are written: as numbers, or as little-endian float32 in base64; `float` unless given."""
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    """How many numbers a vector has: the first of the model's, scaled to length 1 again; all unless given."""


def prompts_of(given: Input) -> tuple[TextPrompt | TokensPrompt, ...]:
    """The inputs as engines know them."""
    if isinstance(given, str):
        return (TextPrompt(given),)
    tokens = tuple(item for item in given if isinstance(item, int))
    if tokens:  # one input, not many
        return (TokensPrompt(tokens),)
    return tuple(
        TextPrompt(item) if isinstance(item, str) else TokensPrompt(item)
        for item in given
        if not isinstance(item, int)
    )


class EmbeddingObject(TypedDict):
    """The vector of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or little-endian float32 in base64."""


class EmbeddingList(TypedDict):
    """The vectors of all inputs."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: PromptCounts


@Operation(
    group=Group.OPENAI,
    scope=Access.INFERENCE,
    body=EmbeddingBody,
    example={"model": "tiny", "input": ["Hello", "Good evening"]},
    answer="`data`: a vector of length 1 for each input, in their order.",
)
async def create_embeddings(request: Request) -> JsonResponse[EmbeddingList]:
    """Make a vector of each text, such that texts of like meaning have vectors of like direction."""
    body = await decode(request, EmbeddingBody)
    body.refuse_unsupported()
    model, prompts = body.requested_model(registry_of(request)), prompts_of(body.input)
    embedded = await with_engine(request, model, lambda engine: embed_all(engine, prompts, body.dimensions))
    as_numbers = body.encoding_format != "base64"
    return await in_thread_if_large(
        sum(map(len, embedded.vectors)), lambda: _response(model, embedded, as_numbers=as_numbers)
    )


def _response(model: str, embedded: Embedded, *, as_numbers: bool) -> JsonResponse[EmbeddingList]:
    total = sum(embedded.n_tokens)
    return JsonResponse(
        {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": numbers(vector) if as_numbers else vector,
                }
                for index, vector in enumerate(embedded.vectors)
            ],
            "model": model,
            "usage": {"prompt_tokens": total, "total_tokens": total},
        }
    )


def numbers(vector: str) -> list[float]:
    """A vector as engines give them, as numbers."""
    unpacked = array("f", base64.b64decode(vector))
    if sys.byteorder == "big":
        unpacked.byteswap()
    return unpacked.tolist()
