"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag
from starlette.requests import Request
from starlette.responses import Response

from kolosal.http.decode import UNION_ERROR, RequestBody, decode
from kolosal.routes.openai.answer import answer
from kolosal.routes.openai.encode import ChatShape, system_fingerprint
from kolosal.routes.openai.fields import GenerationBody, text_or_list
from kolosal.routes.openai.unsupported import MESSAGE_FIELDS, refuse_unsupported
from kolosal.schema import MAX_TOKENS_LIMIT, ChatPrompt, GenerateRequest, Message

MAX_MESSAGES = 16_384
"""Turns of one chat."""

MAX_PARTS = 1024
"""Text parts of one turn."""


class TextPart(RequestBody):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


Content: TypeAlias = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[tuple[TextPart, ...], Field(max_length=MAX_PARTS), Tag("<list>")],
    Discriminator(
        text_or_list,
        custom_error_type=UNION_ERROR,
        custom_error_message="a string, null or an array of text parts",
    ),
]


class ChatMessage(RequestBody):
    """One turn as OpenAI clients send it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: Content | None = None
    name: Annotated[str, Field(max_length=256)] | None = None

    def to_message(self, path: str) -> Message:
        """The turn as engines know it.

        Raises:
            UnsupportedFeature: it holds what this daemon does not have.
        """
        refuse_unsupported(self.model_extra or {}, MESSAGE_FIELDS, path)
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return Message(self.role, text, self.name)


class ChatBody(GenerationBody):
    """A chat request."""

    MISSING = "Missing required fields (model, messages)"
    DEFAULT_MAX_TOKENS: ClassVar[int] = 128

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS_LIMIT)] | None = None

    def to_request(self) -> GenerateRequest:
        """The request as engines know it."""
        messages = tuple(m.to_message(f"messages.{i}.") for i, m in enumerate(self.messages))
        return self.request(ChatPrompt(messages), self.max_completion_tokens or self.max_tokens)


async def create_chat_completion(request: Request) -> Response:
    """Continue a conversation."""
    body = await decode(request, ChatBody)
    return await answer(
        request, body, [body.to_request()], lambda config: ChatShape(system_fingerprint(config))
    )
