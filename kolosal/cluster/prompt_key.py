"""PromptKey: of a request, what says which replica has its prompt's beginning in the KV cache.

Pure. The daemon has no tokens: a worker makes them. So a prompt is compared as the text of which its worker makes tokens, in
blocks of as many bytes as `BLOCK_TOKENS` tokens usually have. A block's hash is made of its text and the hash of the one before,
so one hash stands for a whole beginning, as in vLLM's prefix cache (https://docs.vllm.ai/en/latest/design/prefix_caching.html).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from kolosal.schema import (
    ChatPrompt,
    GenerateRequest,
    InfillPrompt,
    Message,
    Prompt,
    TextPrompt,
    TokensPrompt,
)

BLOCK_TOKENS = 64
"""What a worker's prefix cache takes for a hit at least: fewer tokens in common are worth nothing."""

BYTES_PER_TOKEN = 4
"""Of a text, roughly; of a token id, exactly."""

MAX_BLOCKS = 4096
"""Blocks of a prompt that are compared: 256 Ki tokens. What is behind them is counted only."""

_BLOCK_BYTES = BLOCK_TOKENS * BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class PromptKey:
    """A prompt as the router sees it."""

    blocks: tuple[int, ...] = ()
    """Hashes of its beginnings of one block, of two, and so on. Only prompts that may share cells share a hash."""
    n_tokens: int = 0
    """How long it is, estimated."""
    conversation: int | None = None
    """Stands for the conversation that the daemon keeps and this is a turn of."""


def prompt_key(request: GenerateRequest) -> PromptKey:
    """What the router has to know of a request.

    Hashes are Python's own, with the key of this process: clients can make no two prompts that collide.
    """
    text = b"\0".join(_parts(request.prompt))
    n_tokens = len(text) // BYTES_PER_TOKEN + 1
    if not request.use_cache or request.prompt_logprobs:
        return PromptKey(n_tokens=n_tokens)
    scope = hash((request.cache_scope, request.prompt.kind, _variables(request.prompt)))
    conversation = hash((scope, request.thread_id)) if request.thread_id else None
    return PromptKey(tuple(_block_hashes(text, scope)), n_tokens, conversation)


def _block_hashes(text: bytes, scope: int) -> Iterator[int]:
    """Of the whole blocks only: the end of a prompt is other text soon."""
    parent = scope
    for start in range(0, min(len(text) - _BLOCK_BYTES + 1, MAX_BLOCKS * _BLOCK_BYTES), _BLOCK_BYTES):
        parent = hash((parent, text[start : start + _BLOCK_BYTES]))
        yield parent


def _variables(prompt: Prompt) -> str:
    """What may change a rendered prompt from its beginning on."""
    return json.dumps(prompt.template_kwargs, sort_keys=True) if isinstance(prompt, ChatPrompt) else ""


def _parts(prompt: Prompt) -> Iterator[bytes]:
    """A prompt in the order in which templates write it. Two that begin alike here begin alike in tokens."""
    match prompt:
        case ChatPrompt(messages=messages, tool_use=tool_use):
            for tool in tool_use.tools:
                yield f"{tool.name}\0{tool.description}\0{json.dumps(tool.parameters)}".encode(
                    errors="replace"
                )
            for message in messages:
                yield _message(message).encode(errors="replace")
        case TextPrompt(text=text):
            yield text.encode(errors="replace")
        case TokensPrompt(tokens=tokens):
            yield array("I", tokens).tobytes()
        case InfillPrompt(prefix=prefix, suffix=suffix, prompt=begun, extra=extra):
            for part in (*(f"{name}\0{text}" for name, text in extra), prefix, suffix, begun):
                yield part.encode(errors="replace")


def _message(message: Message) -> str:
    """A turn, without its thoughts: templates leave out those of earlier turns."""
    calls = "".join(f"\0{call.name}\0{call.arguments}" for call in message.tool_calls)
    return f"{message.role}\0{message.content}{calls}"
