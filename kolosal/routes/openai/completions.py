"""`POST /v1/completions`: raw text is continued as it is, without a chat template.

https://platform.openai.com/docs/api-reference/completions/create
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Discriminator, Field, Tag
from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Detokenize, Rendered
from kolosal.engines.unary import unary_call
from kolosal.errors import InvalidRequest
from kolosal.http.decode import UNION_ERROR, decode
from kolosal.http.large import LOGPROB_BYTES, in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.generation import Generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import caller_of, registry_of
from kolosal.routes.common.stream_answer import stream_answer
from kolosal.routes.openai.body import GenerationBody
from kolosal.routes.openai.encode import error_frame, system_fingerprint
from kolosal.routes.openai.text_encode import (
    CompletionPlan,
    TextCompletion,
    text_completion,
    text_frames,
)
from kolosal.sampling import (
    MAX_CHOICES,
    MAX_TOKENS_LIMIT,
    Choices,
    TokenId,
    TopLogprobs,
)
from kolosal.schema import GenerateRequest, InfillPrompt, Prompt, TextPrompt, TokensPrompt

Tokens: TypeAlias = Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=MAX_TOKENS_LIMIT)]


def _kind_of_prompt(value: object) -> str | None:
    """Discriminator of `prompt`, by the first element of an array. The tags never show in an error."""
    if isinstance(value, str):
        return "<text>"
    if not isinstance(value, list | tuple):
        return None
    first = value[0] if value else ""
    if isinstance(first, list | tuple):
        return "<token lists>"
    return "<tokens>" if isinstance(first, int | float) and not isinstance(first, bool) else "<texts>"


Prompts: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(min_length=1, max_length=MAX_CHOICES),
        Tag("<texts>"),
    ]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[tuple[Tokens, ...], Field(max_length=MAX_CHOICES), Tag("<token lists>")],
    Discriminator(
        _kind_of_prompt,
        custom_error_type=UNION_ERROR,
        custom_error_message="a string, an array of strings, an array of tokens or an array of arrays of tokens",
    ),
]


class CompletionBody(GenerationBody):
    """A completion request."""

    MISSING = "Missing required fields (model, prompt)"
    DEFAULTS: ClassVar[Mapping[str, float]] = {"max_tokens": 16}

    prompt: Prompts
    suffix: str | None = None
    """What follows the gap that is to be filled; for models made for that."""
    n: Choices | None = None
    """Choices for each prompt."""
    best_of: Choices | None = None
    """Generations for each prompt, of which the `n` with the highest mean log-probability are the choices."""
    echo: bool | None = None
    """Whether each choice begins with its prompt."""
    logprobs: TopLogprobs | None = None
    """How many of the most probable tokens to give beside each token; with `echo` for the prompt's tokens too."""

    @property
    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """Each prompt, as text or as tokens."""
        match self.prompt:
            case str():
                return (self.prompt,)
            case (int(), *_):
                return (tuple(token for token in self.prompt if isinstance(token, int)),)
            case _:
                return tuple(prompt for prompt in self.prompt if not isinstance(prompt, int))

    @property
    def n_choices(self) -> int:
        """Choices for each prompt."""
        return self.n or 1

    @property
    def n_generations(self) -> int:
        """Generations for each prompt."""
        return self.best_of or self.n_choices

    def to_requests(self) -> list[GenerateRequest]:
        """The generations: those of the first prompt, then those of the next."""
        self._check_counts()
        ranks = self.n_generations > self.n_choices
        return [
            self.request(
                self._prompt(prompt),
                self.max_tokens,
                logprobs=0 if self.logprobs is None and ranks else self.logprobs,
                prompt_logprobs=bool(self.echo) and self.logprobs is not None,
                choice=choice,
            )
            for prompt in self.prompts
            for choice in range(self.n_generations)
        ]

    def _check_counts(self) -> None:
        if self.n_generations < self.n_choices:
            raise InvalidRequest(
                f"best_of must be at least n, which is {self.n_choices}, not {self.best_of}", param="best_of"
            )
        if self.n_generations > self.n_choices and self.stream:
            raise InvalidRequest(
                "best_of must not be more than n where stream is true: the best is known in the end only",
                param="best_of",
            )
        total = len(self.prompts) * self.n_generations
        if total > MAX_CHOICES:
            field = "best_of" if self.best_of is not None else "n"
            raise InvalidRequest(
                f"{field} times the number of prompts must be at most {MAX_CHOICES}, not {total}", param=field
            )

    def _prompt(self, prompt: str | tuple[int, ...]) -> Prompt:
        if not self.suffix:
            if not prompt:
                raise InvalidRequest("prompt must have at least 1 character", param="prompt")
            return TextPrompt(prompt) if isinstance(prompt, str) else TokensPrompt(prompt)
        if not isinstance(prompt, str):
            raise InvalidRequest("prompt must be text where suffix is given, not tokens", param="prompt")
        if self.echo:
            raise InvalidRequest("echo must not be true where suffix is given", param="echo")
        return InfillPrompt(prompt, self.suffix, param="suffix")


@Operation(
    group=Group.OPENAI,
    scope=Access.INFERENCE,
    body=CompletionBody,
    example={"model": "tiny", "prompt": "Once upon a time", "max_tokens": 32},
    answer="The completion, or its chunks.",
)
async def create_completion(request: Request) -> JsonResponse[TextCompletion] | EventStream:
    """Continue one or several texts."""
    body = await decode(request, CompletionBody)
    requests = body.to_requests()
    model = body.requested_model(registry_of(request))
    generation = Generation(caller_of(request), None if body.stream else request)
    starting = generation.begin(_start(generation, model, requests, body.prompts if body.echo else None))

    def plan(echoes: tuple[str, ...] | None) -> CompletionPlan:
        return CompletionPlan(body.n_choices, body.n_generations, body.logprobs is not None, echoes)

    def frames(echoes: tuple[str, ...] | None) -> AsyncGenerator[bytes, None]:
        return text_frames(
            plan(echoes),
            model,
            system_fingerprint(generation.engine.config),
            generation.deltas(),
            generation.timings,
            choices=len(requests),
            include_usage=body.include_usage,
            counts=generation.counts if body.timings_per_token else None,
        )

    if body.stream:
        return await stream_answer(request, starting, frames, generation.abort, error_frame, model=model)
    planned = plan(await starting)
    fingerprint = system_fingerprint(generation.engine.config)
    whole = await generation.finish(generation.completions())
    n_bytes = LOGPROB_BYTES * sum(len(completion.logprobs) for completion in whole)
    return await in_thread_if_large(
        n_bytes,
        lambda: JsonResponse(text_completion(planned, model, fingerprint, whole, generation.timings)),
    )


async def _start(
    generation: Generation,
    model: str | None,
    requests: list[GenerateRequest],
    echoed: tuple[str | tuple[int, ...], ...] | None,
) -> tuple[str, ...] | None:
    """The prompts to echo, as text, once what is to be generated has its first event."""

    async def texts(engine: Engine) -> tuple[str, ...] | None:
        return None if echoed is None else tuple([await _text(engine, prompt) for prompt in echoed])

    echoes = await generation.load(model, texts)
    await generation.submit(requests)
    return echoes


async def _text(engine: Engine, prompt: str | tuple[int, ...]) -> str:
    """A prompt as text. The engine is called for tokens only."""
    if isinstance(prompt, str):
        return prompt
    try:
        return (await unary_call(engine, Detokenize(prompt), Rendered)).text
    except InvalidRequest as exc:
        raise InvalidRequest(f"prompt is not valid: {exc.message}", param="prompt") from exc
