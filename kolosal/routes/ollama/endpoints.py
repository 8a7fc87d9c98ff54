"""`POST /api/generate` and `POST /api/chat`.

A request has one place among the daemon's from its beginning to its end, and one engine: the one that it loads makes its
prompt, answers it, and is the one whose time in memory it may set.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TypeAlias, TypeVar

from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.errors import ContextLengthExceeded
from kolosal.http.large import LOGPROB_BYTES, in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import NDJSON, EventStream
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of, registry_of
from kolosal.routes.common.stream_answer import stream_answer
from kolosal.routes.common.unary_calls import with_engine
from kolosal.routes.ollama.chat_body import OllamaChatBody
from kolosal.routes.ollama.encode import (
    AnswerEncoder,
    ChatResponse,
    ContextField,
    GenerateResponse,
    chat_object,
    generate_object,
    metrics,
)
from kolosal.routes.ollama.errors import error_line
from kolosal.routes.ollama.generate_body import GenerateBody
from kolosal.routes.ollama.keep_alive import apply_keep_alive, free, keep_alive_seconds
from kolosal.routes.ollama.names import checked_name, decode_ollama, resolve_engine
from kolosal.routes.ollama.stream import FinishAnswer, MeasureAnswer, answer_lines
from kolosal.schema import GenerateRequest

T = TypeVar("T")

Prepare: TypeAlias = Callable[[Engine], Awaitable[GenerateRequest]]
"""Makes the request for a loaded engine, and refuses what its model cannot do."""

Truncate: TypeAlias = Callable[[GenerateRequest, Engine], Awaitable[GenerateRequest | None]]
"""What to try in place of a request that is longer than it may be; None: nothing, it is refused."""

ContextOf: TypeAlias = Callable[[Generation, str], Awaitable[ContextField]]
"""`context` of the last object, from the text of the answer."""


@Operation(
    group=Group.OLLAMA,
    scope=Access.INFERENCE,
    body=GenerateBody,
    example={"model": "tiny", "prompt": "Why is the sky blue?", "stream": False},
    stream_media_type="application/x-ndjson",
    answer="The answer, or its pieces, one JSON object a line.",
)
async def generate(request: Request) -> JsonResponse[GenerateResponse] | EventStream:
    """Answer one prompt."""
    body = await decode_ollama(request, GenerateBody)
    body.check()
    keep_alive = keep_alive_seconds(body.keep_alive)
    body.to_request(body.plain_prompt())  # refuses what is wrong before anything is loaded
    encoder = AnswerEncoder(checked_name(registry_of(request), body.model), generate_object)
    if body.only_loads:
        return await _only_load(request, encoder, keep_alive)

    async def prepare(engine: Engine) -> GenerateRequest:
        body.check_model(engine, encoder.model, "generate")
        return body.to_request(await body.prompt_after_context(engine))

    return await _answer(
        request, encoder, keep_alive, prepare, body.truncated, body.context_after, stream=body.streams
    )


@Operation(
    group=Group.OLLAMA,
    scope=Access.INFERENCE,
    body=OllamaChatBody,
    example={"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "stream": False},
    stream_media_type="application/x-ndjson",
    answer="The assistant's turn, or its pieces, one JSON object a line.",
)
async def chat(request: Request) -> JsonResponse[ChatResponse] | EventStream:
    """Continue a conversation, in Ollama's way."""
    body = await decode_ollama(request, OllamaChatBody)
    keep_alive = keep_alive_seconds(body.keep_alive)
    wanted = body.to_request(body.to_prompt())
    encoder = AnswerEncoder(
        checked_name(registry_of(request), body.model), chat_object, calls_tools=bool(body.tools)
    )
    if not body.messages:
        return await _only_load(request, encoder, keep_alive)

    async def prepare(engine: Engine) -> GenerateRequest:
        body.check_model(engine, encoder.model, "chat")
        return wanted

    return await _answer(request, encoder, keep_alive, prepare, body.truncated, stream=body.streams)


async def _only_load(
    request: Request, encoder: AnswerEncoder[T], keep_alive: float | None
) -> JsonResponse[T]:
    """The answer to a request without a prompt: it loads its model, or frees it where `keep_alive` is 0."""
    engine = await resolve_engine(registry_of(request), encoder.model)
    if keep_alive == 0:
        await free(request, engine)
        return JsonResponse(encoder.loaded("unload"))
    await with_engine(request, encoder.model, lambda found: apply_keep_alive(request, found, keep_alive))
    return JsonResponse(encoder.loaded("load"))


async def _answer(
    request: Request,
    encoder: AnswerEncoder[T],
    keep_alive: float | None,
    prepare: Prepare,
    truncate: Truncate,
    context_of: ContextOf | None = None,
    *,
    stream: bool,
) -> JsonResponse[T] | EventStream:
    """Generate, and answer whole or line by line."""
    began = time.monotonic()
    await resolve_engine(registry_of(request), encoder.model)
    generation = Generation(caller_of(request), None if stream else request)
    starting = generation.begin(_start(generation, encoder.model, prepare, truncate))

    async def finish(text: str) -> ContextField:
        context: ContextField = {} if context_of is None else await context_of(generation, text)
        await apply_keep_alive(request, generation.engine, keep_alive)
        return context

    def measured(load_s: float) -> MeasureAnswer:
        return lambda usage: metrics(usage, generation.timings(0), load_s, time.monotonic() - began)

    def lines(load_s: float) -> AsyncGenerator[bytes, None]:
        return answer_lines(encoder, generation.events(), measured(load_s), finish)

    if stream:
        return await stream_answer(
            request, starting, lines, generation.abort, error_line, ping=None, media_type=NDJSON
        )
    measure = measured(await starting)
    return await generation.finish(_whole(generation, encoder, measure, finish))


async def _start(generation: Generation, model: str, prepare: Prepare, truncate: Truncate) -> float:
    """Seconds that loading took, once what is to be generated has its first event."""
    began = time.monotonic()
    load_s = 0.0

    async def first(engine: Engine) -> GenerateRequest:
        nonlocal load_s
        load_s = load_s or time.monotonic() - began
        return generation.with_defaults(await prepare(engine))

    wanted = await generation.load(model, first)
    while True:
        try:
            await generation.submit([wanted])
        except ContextLengthExceeded:
            truncated = await generation.load(model, partial(truncate, wanted))
            if truncated is None:
                raise
            wanted = truncated
        else:
            return load_s


async def _whole(
    generation: Generation, encoder: AnswerEncoder[T], measure: MeasureAnswer, finish: FinishAnswer
) -> JsonResponse[T]:
    [turn] = await generation.turns()
    counts = measure(turn.usage)
    context = await finish(turn.text)
    n_bytes = LOGPROB_BYTES * len(turn.logprobs)
    return await in_thread_if_large(n_bytes, lambda: JsonResponse(encoder.whole(turn, context, counts)))
