"""Tokens and templates, as llama-server names them: what a model makes of a text before it computes anything.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NotRequired

from pydantic import Field, JsonValue
from starlette.requests import Request
from starlette.routing import Route
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Detokenize, Render, Rendered, Tokenize, Tokenized
from kolosal.engines.unary import unary_call
from kolosal.http.decode import RequestBody, decode
from kolosal.http.large import PIECE_BYTES, in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.models.defaults import with_turns
from kolosal.routes.common.body import optional_model, required, unsupported
from kolosal.routes.common.fields import ModelName, Text
from kolosal.routes.common.operation import Access, Group, Operation, with_v1
from kolosal.routes.common.services import caller_of, registry_of
from kolosal.routes.common.unary_calls import call_model, render, with_engine
from kolosal.routes.openai.chat import ChatCompletionBody
from kolosal.routes.openai.messages import MAX_MESSAGES
from kolosal.sampling import MAX_TOKENS_LIMIT, TokenId


def routes() -> list[Route]:
    """The paths of this module, each with and without `/v1`."""
    return with_v1(
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/detokenize", detokenize, methods=["POST"]),
        Route("/apply-template", apply_template, methods=["POST"]),
        first="",
    )


class TokenizeBody(RequestBody):
    """A text to tokenise."""

    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the only one."""
    content: Text | None = None
    """The text. Required, or one of the next two."""
    prompt: Text | None = None
    """vLLM's name for it, which gives vLLM's answer."""
    messages: Annotated[tuple[JsonValue, ...], Field(max_length=MAX_MESSAGES)] | None = None
    """A chat in place of a text, with all that `/apply-template` takes besides; gives vLLM's answer."""
    add_special: bool | None = None
    """Whether to add the tokens that the model wants at the start; false unless given."""
    add_special_tokens: bool | None = None
    """vLLM's name for it, beside `prompt`; true unless given."""
    return_token_strs: bool | None = None
    """Whether vLLM's answer has what each token stands for; false unless given."""
    parse_special: bool | None = None
    """Whether control tokens written in the text are read as such; true unless given."""
    with_pieces: bool | None = None
    """Whether to say what each token stands for; false unless given."""


class DetokenizeBody(RequestBody):
    """Tokens to write out."""

    MISSING = "Missing required field: tokens"

    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the only one."""
    tokens: Annotated[tuple[TokenId, ...], Field(max_length=MAX_TOKENS_LIMIT)]
    """The tokens."""


class TokenPiece(TypedDict):
    """A token and what it stands for."""

    id: int
    piece: str | list[int]
    """Text, or bytes where it is a part of a character."""


class TokenList(TypedDict):
    """The tokens of a text."""

    tokens: Sequence[int] | Sequence[TokenPiece]
    """Pieces where they were asked for."""
    count: NotRequired[int]
    """How many they are. This and what follows are vLLM's, for a `prompt` or `messages`."""
    max_model_len: NotRequired[int]
    """Tokens of one request, prompt and answer together."""
    token_strs: NotRequired[list[str] | None]


class TokenText(TypedDict):
    """The text of tokens."""

    content: str
    prompt: str
    """The same by vLLM's name."""


class RenderedChat(TypedDict):
    """A chat as the model would get it."""

    prompt: str


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=TokenizeBody,
    example={"model": "tiny", "content": "Hello", "with_pieces": True},
    answer="`tokens`: the numbers, or with pieces an object with `id` and `piece` for each.",
)
async def tokenize(request: Request) -> JsonResponse[TokenList]:
    """The tokens of a text."""
    body = await decode(request, TokenizeBody)
    if body.messages is not None or (body.content is None and body.prompt is not None):
        return await _as_vllm(request, body)
    call = Tokenize(
        required(body.content, "content"),
        add_special=bool(body.add_special),
        parse_special=body.parse_special is not False,
        with_pieces=bool(body.with_pieces),
    )
    model = optional_model(registry_of(request), body.model)
    answer = await call_model(request, model, call, Tokenized)
    if not body.with_pieces:
        return JsonResponse({"tokens": answer.tokens})
    return await in_thread_if_large(PIECE_BYTES * len(answer.tokens), lambda: _with_pieces(answer))


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=DetokenizeBody,
    example={"model": "tiny", "tokens": [72, 101, 108, 108, 111]},
    answer="`content`: the text.",
)
async def detokenize(request: Request) -> JsonResponse[TokenText]:
    """The text of tokens, control tokens written out."""
    body = await decode(request, DetokenizeBody)
    call, model = Detokenize(body.tokens), optional_model(registry_of(request), body.model)
    answer = await call_model(request, model, call, Rendered)
    return JsonResponse({"content": answer.text, "prompt": answer.text})


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    body=ChatCompletionBody,
    example={"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]},
    answer="`prompt`: the text that the model would continue.",
)
async def apply_template(request: Request) -> JsonResponse[RenderedChat]:
    """A chat as the model would get it: through its chat template, control tokens written out. Nothing is generated."""
    body = await decode(request, ChatCompletionBody)
    model = optional_model(registry_of(request), body.model)
    answer = await render(request, model, body.to_prompt())
    return JsonResponse({"prompt": answer.text})


async def _as_vllm(request: Request, body: TokenizeBody) -> JsonResponse[TokenList]:
    """https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"""
    strings = bool(body.return_token_strs)
    if body.messages is not None and strings:
        raise unsupported("return_token_strs beside messages")
    chat = None if body.messages is None else (await decode(request, ChatCompletionBody)).to_prompt()

    model = optional_model(registry_of(request), body.model)

    async def ask(engine: Engine) -> TokenList:
        pieces: tuple[str, ...] = ()
        if chat is not None:
            whole = with_turns(chat, caller_of(request).model(model))
            tokens = (await unary_call(engine, Render(whole, with_tokens=True), Rendered)).tokens
        else:
            special = body.add_special_tokens is not False
            call = Tokenize(body.prompt or "", add_special=special, parse_special=True, with_pieces=strings)
            found = await unary_call(engine, call, Tokenized)
            tokens, pieces = found.tokens, found.pieces
        n_ctx = engine.n_ctx
        spelled = [piece.encode("latin-1").decode(errors="replace") for piece in pieces]
        return {
            "tokens": tokens,
            "count": len(tokens),
            "max_model_len": n_ctx,
            "token_strs": spelled if strings else None,
        }

    return JsonResponse(await with_engine(request, model, ask))


def _with_pieces(answer: Tokenized) -> JsonResponse[TokenList]:
    pieces: list[TokenPiece] = [
        {"id": token, "piece": _piece(piece)}
        for token, piece in zip(answer.tokens, answer.pieces, strict=True)
    ]
    return JsonResponse({"tokens": pieces})


def _piece(piece: str) -> str | list[int]:
    """What a token stands for: text, or bytes where it is a part of a character."""
    data = piece.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
