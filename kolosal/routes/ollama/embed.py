"""`POST /api/embed`, and its older form `POST /api/embeddings`: texts as vectors of length 1."""

from __future__ import annotations

import time
from typing import Annotated, Any, TypeAlias

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import (
    MAX_DIMENSIONS,
    MAX_INPUTS,
    Embedded,
    Tokenize,
    Tokenized,
)
from kolosal.engines.unary import embed_all, unary_call
from kolosal.errors import ContextLengthExceeded, InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.fields import ARRAY, STRING, ModelName, Text, as_tuple, by_kind
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.common.unary_calls import with_engine
from kolosal.routes.ollama.keep_alive import KeepAlive, apply_keep_alive, keep_alive_seconds
from kolosal.routes.ollama.names import checked_name, decode_ollama, resolve_engine
from kolosal.routes.openai.embeddings import numbers
from kolosal.schema import TextPrompt, TokensPrompt

_NS = 1_000_000_000

Input: TypeAlias = Annotated[
    Annotated[Text, STRING] | Annotated[tuple[Text, ...], Field(max_length=MAX_INPUTS), ARRAY],
    by_kind("a string or an array of strings"),
]


class _EmbedFields(RequestBody):
    """The fields of both endpoints."""

    model: ModelName | None = None
    """An `engine_id`, perhaps with `:latest`; may be left out only where a default engine is configured."""
    keep_alive: KeepAlive | None = None
    """How long the model stays in memory, as for `/api/generate`."""
    options: dict[str, Any] | None = None
    """Changes nothing: no token is chosen."""


class EmbedBody(_EmbedFields):
    """Texts to make vectors of."""

    input: Input | None = None
    """A string or an array of strings; without one the model is only loaded."""
    truncate: bool | None = None
    """Whether a text that is too long is cut off; true unless given."""
    dimensions: Annotated[int, Field(ge=0, le=MAX_DIMENSIONS)] | None = None
    """How many numbers a vector has: the first of the model's, scaled to length 1 again; 0 and not given: all."""

    def texts(self) -> tuple[str, ...]:
        """The texts."""
        texts = as_tuple(self.input or None)
        for index, text in enumerate(texts):
            if not text:
                raise InvalidRequest(f"input.{index} must have at least 1 character", param=f"input.{index}")
        return texts


class OllamaEmbeddingBody(_EmbedFields):
    """A text to make a vector of."""

    prompt: Text | None = None
    """The text, cut off where it is too long; without one the model is only loaded."""


class EmbedResponse(TypedDict):
    """Vectors."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    """Nanoseconds, as all durations."""
    load_duration: int
    prompt_eval_count: int
    """Tokens of all texts."""


class EmbeddingsResponse(TypedDict):
    """A vector."""

    embedding: list[float]


@Operation(
    group=Group.OLLAMA,
    scope=Access.INFERENCE,
    body=EmbedBody,
    example={"model": "tiny", "input": ["Hello", "Good evening"]},
    answer="`embeddings`: a vector of length 1 for each text, in their order.",
)
async def embed(request: Request) -> JsonResponse[EmbedResponse]:
    """Make a vector of each text, in Ollama's way."""
    body = await decode_ollama(request, EmbedBody)
    began = time.monotonic()
    keep_alive, texts = keep_alive_seconds(body.keep_alive), body.texts()
    name = checked_name(registry_of(request), body.model)
    embedded, load_s = await _vectors(
        request, name, keep_alive, texts, body.dimensions or None, truncate=body.truncate is not False
    )

    def response() -> JsonResponse[EmbedResponse]:
        return JsonResponse(
            {
                "model": name,
                "embeddings": [numbers(vector) for vector in embedded.vectors],
                "total_duration": int((time.monotonic() - began) * _NS),
                "load_duration": int(load_s * _NS),
                "prompt_eval_count": sum(embedded.n_tokens),
            }
        )

    return await in_thread_if_large(sum(map(len, embedded.vectors)), response)


@Operation(
    group=Group.OLLAMA,
    scope=Access.INFERENCE,
    body=OllamaEmbeddingBody,
    example={"model": "tiny", "prompt": "Hello"},
    answer="`embedding`: a vector of length 1.",
)
async def embeddings(request: Request) -> JsonResponse[EmbeddingsResponse]:
    """Make a vector of one text: the older form of `/api/embed`."""
    body = await decode_ollama(request, OllamaEmbeddingBody)
    keep_alive = keep_alive_seconds(body.keep_alive)
    name = checked_name(registry_of(request), body.model)
    texts = (body.prompt,) if body.prompt else ()
    embedded, _ = await _vectors(request, name, keep_alive, texts, None, truncate=True)
    return JsonResponse({"embedding": numbers(embedded.vectors[0]) if embedded.vectors else []})


async def _vectors(
    request: Request,
    name: str,
    keep_alive: float | None,
    texts: tuple[str, ...],
    dimensions: int | None,
    *,
    truncate: bool,
) -> tuple[Embedded, float]:
    """All vectors, and the seconds that loading the model took."""
    began = time.monotonic()

    async def work(engine: Engine) -> tuple[Embedded, float]:
        load_s = time.monotonic() - began
        embedded = await _embed(engine, texts, dimensions, truncate=truncate) if texts else Embedded((), ())
        await apply_keep_alive(request, engine, keep_alive)
        return embedded, load_s

    await resolve_engine(registry_of(request), name)
    return await with_engine(request, name, work)


async def _embed(
    engine: Engine, texts: tuple[str, ...], dimensions: int | None, *, truncate: bool
) -> Embedded:
    """All vectors."""
    try:
        return await embed_all(engine, tuple(map(TextPrompt, texts)), dimensions)
    except ContextLengthExceeded as exc:
        if not truncate:
            raise ContextLengthExceeded(
                f"{exc.message} (the input length exceeds the context length)",  # Ollama's own words
                param="input",
                n_prompt_tokens=exc.n_prompt_tokens,
                n_ctx=exc.n_ctx,
            ) from exc
    cut = tuple([await _cut(engine, text) for text in texts])
    return await embed_all(engine, cut, dimensions)


async def _cut(engine: Engine, text: str) -> TokensPrompt:
    """The beginning of a text: as many tokens as the model takes at once."""
    tokens = (await unary_call(engine, Tokenize(text, add_special=True, with_pieces=False), Tokenized)).tokens
    info = engine.info
    limit = len(tokens) if info is None else min(info.n_ctx, info.n_ctx_train or info.n_ctx)
    return TokensPrompt(tokens[:limit])
