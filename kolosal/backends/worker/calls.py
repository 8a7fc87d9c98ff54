"""What a backend is asked besides generating: tokens and rendered prompts, where it has them."""

from __future__ import annotations

from kolosal.backends.arguments import tool_objects
from kolosal.backends.interface import BackendInterfaceBase
from kolosal.backends.worker.answer import messages_of
from kolosal.backends.worker.threads_kept import KeptContexts
from kolosal.engines.ipc.calls import (
    Call,
    CallResult,
    Detokenize,
    Embed,
    Rank,
    Render,
    Rendered,
    Tokenize,
    Tokenized,
)
from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.schema import ChatPrompt, Prompt


def call_result(
    call: Call, interface: BackendInterfaceBase, contexts: KeptContexts, n_vocab: int
) -> CallResult:
    """The result of a call.

    Raises:
        UnsupportedFeature: the backend has nothing of the kind.
    """
    match call:
        case Tokenize():
            tokens = tuple(
                interface.tokenize(call.text, add_special=call.add_special, parse_special=call.parse_special)
            )
            pieces = map(interface.token_bytes, tokens if call.with_pieces else ())
            return Tokenized(tokens, tuple(piece.decode("latin-1") for piece in pieces))
        case Detokenize(tokens=tokens):
            if tokens and n_vocab and max(tokens) >= n_vocab:
                raise InvalidRequest(
                    f"tokens must be below {n_vocab}, the size of the model's vocabulary, not {max(tokens)}",
                    param="tokens",
                )
            text = b"".join(map(interface.token_bytes, tokens)).decode(errors="replace")
            return Rendered(text, len(tokens))
        case Render(prompt=prompt, with_tokens=with_tokens):
            messages = messages_of(prompt, interface, contexts)
            given = _template_arguments(prompt, interface.supports)
            text = interface.render(messages, **given)
            if not with_tokens:
                return Rendered(text, interface.count_tokens(messages, **given))
            made = tuple(interface.tokenize(text, add_special=False, parse_special=True))
            return Rendered(text, len(made), made)
        case Embed() | Rank():
            what = "embeddings" if isinstance(call, Embed) else "ranks"
            raise UnsupportedFeature(f"The backend '{interface.args.backend}' makes no {what}", param="model")


def _template_arguments(prompt: Prompt, supports: frozenset[str]) -> dict[str, object]:
    if not isinstance(prompt, ChatPrompt):
        return {}
    given = {
        "tools": tool_objects(prompt.tool_use),
        "continued_turns": prompt.continues,
        "template_kwargs": dict(prompt.template_kwargs),
    }
    return {name: value for name, value in given.items() if name in supports}
