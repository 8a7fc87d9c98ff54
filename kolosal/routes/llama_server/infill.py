"""`POST /infill`: fill in the middle of a file, for editor plug-ins that were written for llama-server.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.stream import Completion
from kolosal.http.decode import RequestBody, decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream, data_frame
from kolosal.routes.common.generation import Generation, start_generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.openai.body import GenerationBody
from kolosal.routes.openai.encode import Timings, error_frame, timings
from kolosal.schema import FinishReason, GenerateRequest, InfillPrompt

MAX_FILES = 1024
"""Other files of one request."""

_MAX_NAME_CHARS = 1024

_UNNAMED = "tmp"
"""The name of a file that has none: llama-server's."""


class ExtraFile(RequestBody):
    """Another file, as context."""

    text: str
    filename: Annotated[str, Field(max_length=_MAX_NAME_CHARS)] | None = None


class InfillBody(GenerationBody):
    """A request to fill in the middle. `model` may be left out: then the default engine is asked, or the first."""

    input_prefix: str
    """The text before the gap."""
    input_suffix: str
    """The text after it."""
    input_extra: Annotated[tuple[ExtraFile, ...], Field(max_length=MAX_FILES)] | None = None
    """Other files; of them as much is used as there is room for, the last ones first."""
    prompt: str | None = None
    """The beginning of what fills the gap."""
    return_tokens: bool | None = None
    """Whether to give the ids of the generated tokens, too."""

    def to_request(self) -> GenerateRequest:
        """The request as engines know it."""
        extra = tuple((file.filename or _UNNAMED, file.text) for file in self.input_extra or ())
        prompt = InfillPrompt(self.input_prefix, self.input_suffix, self.prompt or "", extra, "input_suffix")
        return self.request(prompt, self.max_tokens)


class InfillPiece(TypedDict):
    """A piece of what belongs in the middle: an event of a stream."""

    index: int
    content: str
    tokens: list[int]
    """With `return_tokens`; else empty."""
    stop: bool
    """Whether this is the last."""
    tokens_predicted: int


class InfillAnswer(InfillPiece):
    """What belongs in the middle, in llama-server's shape. A stream's last event is one, with what is new in it."""

    model: str
    tokens_evaluated: int
    tokens_cached: int
    truncated: bool
    stop_type: Literal["eos", "word", "limit"]
    stopping_word: str
    timings: Timings


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=InfillBody,
    example={"input_prefix": "def add(a, b):\n    return ", "input_suffix": "\n", "n_predict": 16},
    answer="What fills the gap, or its pieces.",
)
async def infill(request: Request) -> JsonResponse[InfillAnswer] | EventStream:
    """Fill in the middle."""
    body = await decode(request, InfillBody)
    generation = await start_generation(request, body.model or None, [body.to_request()])
    model, with_tokens = body.model or generation.engine.engine_id, bool(body.return_tokens)
    if not body.stream:
        [whole] = await generation.finish(generation.completions())
        return JsonResponse(_answer(whole, model, generation.timings(0), with_tokens=with_tokens))
    return EventStream(_frames(generation, model, with_tokens=with_tokens), generation.abort, error_frame)


def _answer(
    completion: Completion, model: str, seconds: tuple[float, float], *, with_tokens: bool
) -> InfillAnswer:
    usage = completion.usage
    if completion.finish_reason is FinishReason.LENGTH:
        stop_type: Literal["eos", "word", "limit"] = "limit"
    else:
        stop_type = "eos" if completion.stop is None else "word"
    return {
        "index": 0,
        "content": completion.text,
        "tokens": list(completion.tokens) if with_tokens else [],
        "stop": True,
        "model": model,
        "tokens_predicted": usage.completion_tokens,
        "tokens_evaluated": usage.prompt_tokens,
        "tokens_cached": usage.total_tokens,
        "truncated": False,
        "stop_type": stop_type,
        "stopping_word": completion.stop or "",
        "timings": timings(usage, seconds),
    }


async def _frames(generation: Generation, model: str, *, with_tokens: bool) -> AsyncGenerator[bytes, None]:
    """The events of a stream. llama-server's has no `[DONE]`: `stop` says which is the last."""
    n_tokens = 0
    async for _, delta in generation.deltas():
        if delta.finish_reason is not None and delta.usage is not None:
            end = Completion(
                delta.text, delta.finish_reason, delta.usage, delta.tokens, delta.logprobs, delta.stop
            )
            yield data_frame(_answer(end, model, generation.timings(0), with_tokens=with_tokens))
            return
        n_tokens += len(delta.tokens)
        if delta.text or (with_tokens and delta.tokens):
            piece: InfillPiece = {
                "index": 0,
                "content": delta.text,
                "tokens": list(delta.tokens) if with_tokens else [],
                "stop": False,
                "tokens_predicted": n_tokens,
            }
            yield data_frame(piece)
