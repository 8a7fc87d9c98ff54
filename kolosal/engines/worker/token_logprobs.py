"""What is reported about tokens whose log-probabilities were asked for."""

from __future__ import annotations

from kolosal.engines.worker.backend import Backend, RowLogprobs
from kolosal.schema import TokenLogprob, TokenLogprobs


def report(backend: Backend, row: RowLogprobs, token: int, *, in_prompt: bool = False) -> TokenLogprobs:
    """A token that stands after a row, with the most probable ones in its place."""
    top = tuple(_chance(backend, other, logprob) for other, logprob in row.top)
    return TokenLogprobs(_chance(backend, token, row.of(token)), top, in_prompt)


def report_first(backend: Backend, token: int) -> TokenLogprobs:
    """The first token of a prompt: nothing says how probable it was."""
    return TokenLogprobs(_chance(backend, token, 0.0), (), in_prompt=True)


def _chance(backend: Backend, token: int, logprob: float) -> TokenLogprob:
    data = backend.token_bytes(token)
    piece = data or backend.written(token)
    return TokenLogprob(token, piece.decode("latin-1"), logprob, control=not data)
