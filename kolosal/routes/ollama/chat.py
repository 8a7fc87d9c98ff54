"""`POST /api/chat`."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request

from kolosal.engines.engine import Engine
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.ollama.answering import answer, only_load
from kolosal.routes.ollama.durations import keep_alive_seconds
from kolosal.routes.ollama.encode import AnswerEncoder, ChatResponse, chat_object
from kolosal.routes.ollama.fields import GenerationBody
from kolosal.routes.ollama.messages import Messages, Tools, to_messages, to_tool_use
from kolosal.routes.ollama.names import checked_name, decode_ollama
from kolosal.routes.ollama.shorten import shortened
from kolosal.schema import ChatPrompt, GenerateRequest


class ChatBody(GenerationBody):
    """A conversation to continue."""

    messages: Messages | None = None
    """The conversation, oldest turn first; without one the model is only loaded, or freed where `keep_alive` is 0."""
    tools: Tools | None = None
    """Functions that the model may call."""

    def to_prompt(self) -> ChatPrompt:
        """The conversation as engines know it. A last turn of the assistant is continued.

        Raises:
            InvalidRequest: a field does not fit the others.
            UnsupportedFeature: the request asks for something that this daemon does not have.
        """
        messages = to_messages(self.messages or ())
        last = messages[-1] if messages else None
        return ChatPrompt(
            messages,
            to_tool_use(self.tools or ()),
            continues=last is not None and last.role == "assistant" and not last.tool_calls,
            template_kwargs=self.template_kwargs(),
        )

    async def shorten(self, engine: Engine, wanted: GenerateRequest) -> GenerateRequest | None:
        """The request with fewer turns; None where it is to be refused.

        A last turn that alone is longer than `num_ctx` gets the engine's whole window, because to cut it would change what
        was said.

        Raises:
            KolosalError: as `Engine.call`.
        """
        if self.truncate is False or not isinstance(wanted.prompt, ChatPrompt):
            return None
        prompt = await shortened(engine, wanted.prompt, wanted.max_context)
        if prompt is not None:
            return replace(wanted, prompt=prompt)
        return None if wanted.max_context is None else replace(wanted, max_context=None)


@Operation(
    group=Group.OLLAMA,
    scope=Access.INFERENCE,
    body=ChatBody,
    example={"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "stream": False},
    streams=True,
    stream_media_type="application/x-ndjson",
    answer="The assistant's turn, or its pieces, one JSON object a line.",
)
async def chat(request: Request) -> JsonResponse[ChatResponse] | EventStream:
    """Continue a conversation, in Ollama's way."""
    body = await decode_ollama(request, ChatBody)
    keep_alive = keep_alive_seconds(body.keep_alive)
    wanted = body.to_request(body.to_prompt())
    encoder = AnswerEncoder(
        checked_name(registry_of(request), body.model), chat_object, calls_tools=bool(body.tools)
    )
    if not body.messages:
        return await only_load(request, encoder, keep_alive)

    async def prepare(engine: Engine) -> GenerateRequest:
        body.check_model(engine, encoder.model, "chat")
        return wanted

    return await answer(request, encoder, keep_alive, prepare, body.shorten, stream=body.streams)
