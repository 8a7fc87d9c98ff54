"""`POST /completion`: raw text or tokens are continued, in llama-server's own shape.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeAlias, cast

from pydantic import Discriminator, Field, Tag
from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import MAX_TEXT_CHARS, Detokenize, Rendered, Tokenize, Tokenized
from kolosal.engines.unary import unary_call
from kolosal.errors import InvalidRequest
from kolosal.http.body import parse_object, read_json
from kolosal.http.decode import UNION_ERROR, decode
from kolosal.http.large import LOGPROB_BYTES, in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.body import NeutralValues, OpenBody, optional_model
from kolosal.routes.common.fields import NUMBER, STRING, by_kind
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of, registry_of
from kolosal.routes.common.stream_answer import stream_answer
from kolosal.routes.llama_server.native_body import NativeBody
from kolosal.routes.llama_server.native_encode import NativeAnswer
from kolosal.routes.llama_server.native_generation import NativeRun
from kolosal.routes.openai.completions import Tokens, create_completion
from kolosal.routes.openai.encode import error_frame
from kolosal.routes.openai.text_encode import TextCompletion
from kolosal.sampling import MAX_CHOICES, MAX_TOKENS_LIMIT, Choices, TokenId
from kolosal.schema import GenerateRequest, TextPrompt, TokensPrompt

MAX_TEXTS = 128
"""Texts among the tokens of one prompt: each is tokenised by a call of its own."""

_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class PromptObject(OpenBody):
    """A prompt as an object, which could hold images, too."""

    UNSUPPORTED: ClassVar[NeutralValues] = {"multimodal_data": ([],)}

    prompt_string: _Text


_Piece = Annotated[Annotated[TokenId, NUMBER] | Annotated[_Text, STRING], by_kind("a token or a string")]
Mixed: TypeAlias = Annotated[tuple[_Piece, ...], Field(min_length=1, max_length=MAX_TOKENS_LIMIT)]


def _kind_of_one(value: object) -> str | None:
    """Discriminator of one prompt. The tags never show in an error."""
    match value:
        case str():
            return "<string>"
        case dict() | PromptObject():
            return "<object>"
        case list() | tuple() if any(isinstance(piece, str) for piece in value):
            return "<mixed>"
        case list() | tuple():
            return "<tokens>"
    return None


def _kind_of_prompt(value: object) -> str | None:
    """The same, where texts alone, and what holds arrays or objects, are several prompts."""
    if isinstance(value, list | tuple):
        several = all(isinstance(each, str) for each in value) or any(
            isinstance(each, list | tuple | dict | PromptObject) for each in value
        )
        if several:
            return "<prompts>"
    return _kind_of_one(value)


_WORDS = "a string, an array of tokens and strings, an object with a prompt_string, or an array of these"
OnePrompt: TypeAlias = Annotated[
    Annotated[_Text, Tag("<string>")]
    | Annotated[PromptObject, Tag("<object>")]
    | Annotated[Mixed, Tag("<mixed>")]
    | Annotated[Tokens, Tag("<tokens>")],
    Discriminator(_kind_of_one, custom_error_type=UNION_ERROR, custom_error_message=_WORDS),
]
NativePrompts: TypeAlias = Annotated[
    Annotated[_Text, Tag("<string>")]
    | Annotated[PromptObject, Tag("<object>")]
    | Annotated[Mixed, Tag("<mixed>")]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[tuple[OnePrompt, ...], Field(min_length=1, max_length=MAX_CHOICES), Tag("<prompts>")],
    Discriminator(_kind_of_prompt, custom_error_type=UNION_ERROR, custom_error_message=_WORDS),
]

Part: TypeAlias = "str | tuple[int, ...]"

_One: TypeAlias = "str | PromptObject | tuple[int | str, ...]"


class NativeCompletionBody(NativeBody):
    """A prompt, or several, to continue."""

    MISSING = "Missing required field: prompt"
    DEFAULTS = {"temperature": 0.8, "top_p": 0.95}  # noqa: RUF012 - a ClassVar of the base
    prompt: NativePrompts
    """A text, tokens, or both mixed; an array of texts, or of arrays and objects, is several prompts."""
    n_cmpl: Choices | None = None
    """Answers to each prompt."""
    n: Choices | None = None
    """Another name for `n_cmpl`, which wins."""

    def prompts(self) -> list[tuple[Part, ...]]:
        """Each prompt as texts and runs of tokens, in their order."""
        given = self.prompt
        if isinstance(given, tuple) and _kind_of_prompt(given) == "<prompts>":
            return [_parts(cast(_One, each)) for each in given]
        return [_parts(cast(_One, given))]

    @property
    def n_answers(self) -> int:
        """Answers to each prompt."""
        return self.n_cmpl or self.n or 1

    def check(self, n_prompts: int) -> None:
        """Refuse counts that do not fit together."""
        total = n_prompts * self.n_answers
        if total > MAX_CHOICES:
            raise InvalidRequest(
                f"n_cmpl times the number of prompts must be at most {MAX_CHOICES}, not {total}",
                param="n_cmpl",
            )
        if total > 1 and self.time_limit_s is not None:
            raise InvalidRequest(
                f"t_max_predict_ms must be 0 or -1 where there are several answers, and there are {total}",
                param="t_max_predict_ms",
            )

    def to_requests(self, prompts: Sequence[TextPrompt | TokensPrompt]) -> list[GenerateRequest]:
        """The generations: those of the first prompt, then those of the next."""
        return [
            self.request(prompt, self.max_tokens, logprobs=self.n_probs or None, choice=choice)
            for prompt in prompts
            for choice in range(self.n_answers)
        ]


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=NativeCompletionBody,
    example={"prompt": "Once upon a time", "n_predict": 16},
    answer="The continuation, or its pieces; of several prompts an array.",
)
async def complete(request: Request) -> JsonResponse[NativeAnswer | list[NativeAnswer]] | EventStream:
    """Continue a text, tokens, or several of them, as llama-server does."""
    body = await decode(request, NativeCompletionBody)
    parts = body.prompts()
    body.check(len(parts))
    model = optional_model(registry_of(request), body.model)
    body.to_requests([TokensPrompt((0,))])  # refuses what is wrong before anything is loaded
    generation = Generation(caller_of(request), None if body.stream else request)
    starting = generation.begin(_start(generation, model, body, parts))
    if body.stream:
        return await stream_answer(
            request, starting, lambda run: run.frames(tokens=True), generation.abort, error_frame, model=model
        )
    answers = await generation.finish((await starting).whole())
    n_bytes = LOGPROB_BYTES * sum(len(answer.get("completion_probabilities", ())) for answer in answers)
    whole: NativeAnswer | list[NativeAnswer] = answers[0] if len(answers) == 1 else answers
    return await in_thread_if_large(n_bytes, lambda: JsonResponse(whole))


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=NativeCompletionBody,
    example={"prompt": "Once upon a time", "n_predict": 16},
    answer="As `/completion` gives it; where a model is named, as `/v1/completions` does.",
)
async def complete_either(
    request: Request,
) -> JsonResponse[TextCompletion] | JsonResponse[NativeAnswer | list[NativeAnswer]] | EventStream:
    """Continue a text: in OpenAI's way where a model is named, as its clients must, and in llama-server's where none is."""
    names_model = parse_object(await read_json(request)).get("model") not in (None, "")
    if names_model:
        return await create_completion(request)
    return await complete(request)


async def _start(
    generation: Generation, model: str | None, body: NativeCompletionBody, parts: list[tuple[Part, ...]]
) -> NativeRun:
    async def prepare(engine: Engine) -> list[tuple[TextPrompt | TokensPrompt, str]]:
        return list(await asyncio.gather(*(_prompt(engine, each) for each in parts)))

    prompts = await generation.load(model, prepare)
    requests = body.to_requests([prompt for prompt, _ in prompts])
    await generation.submit(requests)
    texts = [text for _, text in prompts for _ in range(body.n_answers)]
    return NativeRun(body, generation, requests, texts)


async def _prompt(engine: Engine, parts: tuple[Part, ...]) -> tuple[TextPrompt | TokensPrompt, str]:
    """A prompt as the engine gets it, and as text."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return TextPrompt(parts[0]), parts[0]
    tokens: list[int] = []
    for place, part in enumerate(parts):
        if isinstance(part, str):  # what the model wants at the start is added to a text that stands there
            call = Tokenize(part, add_special=place == 0, parse_special=True, with_pieces=False)
            tokens += (await unary_call(engine, call, Tokenized)).tokens
        else:
            tokens += part
    try:
        text = (await unary_call(engine, Detokenize(tuple(tokens)), Rendered)).text
    except InvalidRequest as exc:
        raise InvalidRequest(f"prompt is not valid: {exc.message}", param="prompt") from exc
    return TokensPrompt(tuple(tokens)), text


def _parts(prompt: _One) -> tuple[Part, ...]:
    """A prompt as texts and runs of tokens."""
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt, PromptObject):
        prompt.refuse_unsupported("prompt.")
        return (prompt.prompt_string,)
    parts: list[Part] = []
    run: list[int] = []
    for piece in prompt:
        if isinstance(piece, int):
            run.append(piece)
            continue
        parts += [tuple(run), piece] if run else [piece]
        run = []
    parts += [tuple(run)] if run else []
    n_texts = sum(isinstance(part, str) for part in parts)
    if n_texts > MAX_TEXTS:
        raise InvalidRequest(
            f"prompt must have at most {MAX_TEXTS} strings among its tokens, not {n_texts}", param="prompt"
        )
    return tuple(parts)
