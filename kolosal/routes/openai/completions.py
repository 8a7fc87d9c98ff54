"""`POST /v1/completions`: raw text is continued as it is, without a chat template."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

from pydantic import Discriminator, Field, Tag
from starlette.requests import Request
from starlette.responses import Response

from kolosal.http.decode import UNION_ERROR, decode
from kolosal.routes.openai.answer import answer
from kolosal.routes.openai.encode import TextShape
from kolosal.routes.openai.fields import GenerationBody, text_or_list
from kolosal.schema import GenerateRequest, TextPrompt

MAX_PROMPTS = 128
"""Prompts of one request; each is a generation of its own."""

Prompts: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1), Tag("<text>")]
    | Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(min_length=1, max_length=MAX_PROMPTS),
        Tag("<list>"),
    ],
    Discriminator(
        text_or_list,
        custom_error_type=UNION_ERROR,
        custom_error_message="a string or an array of strings",
    ),
]


class CompletionBody(GenerationBody):
    """A completion request."""

    MISSING = "Missing required fields (model, prompt)"
    DEFAULT_MAX_TOKENS: ClassVar[int] = 16

    prompt: Prompts

    def to_requests(self) -> list[GenerateRequest]:
        """One request for each prompt."""
        prompts = (self.prompt,) if isinstance(self.prompt, str) else self.prompt
        return [self.request(TextPrompt(prompt), self.max_tokens) for prompt in prompts]


async def create_completion(request: Request) -> Response:
    """Continue one or several texts."""
    body = await decode(request, CompletionBody)
    return await answer(request, body, body.to_requests(), lambda _config: TextShape())
