"""What is reported about tokens whose log-probabilities were asked for; `llamacpp/logits_row.py` computes these."""

from __future__ import annotations

from kolosal.engines.worker.backend import Backend, RowLogprobs
from kolosal.schema import TokenLogprob, TokenLogprobs


def token_logprobs(
    backend: Backend, row: RowLogprobs, token: int, *, in_prompt: bool = False
) -> TokenLogprobs:
    """A token that stands after a row, with the most probable ones in its place."""
    top = tuple(_token_logprob(backend, other, logprob) for other, logprob in row.top)
    return TokenLogprobs(_token_logprob(backend, token, row.of(token)), top, in_prompt)


def first_token_logprobs(backend: Backend, token: int) -> TokenLogprobs:
    """The first token of a prompt: nothing says how probable it was."""
    return TokenLogprobs(_token_logprob(backend, token, 0.0), (), in_prompt=True)


def _token_logprob(backend: Backend, token: int, logprob: float) -> TokenLogprob:
    data = backend.token_bytes(token)
    piece = data or backend.written(token)
    return TokenLogprob(token, piece.decode("latin-1"), logprob, control=not data)
