"""`GET /tokenizer_info`: what a model's file says of its tokens, by the names of a tokenizer's configuration. vLLM's.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from typing_extensions import TypedDict

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Detokenize, Rendered
from kolosal.engines.unary import unary_call
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.body import optional_model
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import registry_of, services_of
from kolosal.routes.common.unary_calls import with_engine
from kolosal.routes.llama_server.properties import PropsQuery

_IDS = {name: f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "unknown", "padding")}


class TokenizerInfo(TypedDict):
    """A model's tokens."""

    tokenizer_class: str
    """The kind of tokenizer, as the file names it: `gpt2`, `llama`, `bert`, …"""
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    pad_token: str | None
    vocab_size: int
    model_max_length: int
    """Tokens of one request, prompt and answer together."""
    chat_template: str


@Operation(
    group=Group.TEXT,
    scope=Access.INFERENCE,
    query=PropsQuery,
    answer="The tokenizer: its kind, special tokens, chat template.",
)
async def tokenizer_info(request: Request) -> JsonResponse[TokenizerInfo]:
    """What a model's tokens are. Loads it."""
    model = optional_model(registry_of(request), read_query(request, PropsQuery).model)
    return JsonResponse(await with_engine(request, model, lambda engine: _info(request, engine)))


async def _info(request: Request, engine: Engine) -> TokenizerInfo:
    _, card = await services_of(request).cards.of(Path(engine.config.model_path)) or (None, None)
    metadata = {} if card is None else card.header.metadata
    spelled: dict[str, str | None] = {}
    for name, key in _IDS.items():
        token = metadata.get(key)
        known = isinstance(token, int) and not isinstance(token, bool) and token >= 0
        call = Detokenize((token,)) if known and isinstance(token, int) else None
        spelled[name] = None if call is None else (await unary_call(engine, call, Rendered)).text
    info, template = engine.info, engine.config.parameters.chat_template
    return {
        "tokenizer_class": str(metadata.get("tokenizer.ggml.model", "")),
        "bos_token": spelled["bos"],
        "eos_token": spelled["eos"],
        "unk_token": spelled["unknown"],
        "pad_token": spelled["padding"],
        "vocab_size": 0 if info is None else info.n_vocab,
        "model_max_length": engine.n_ctx,
        "chat_template": template or ("" if card is None else card.chat_template),
    }
