"""Unary calls: what an engine is asked besides generating, from the question to its one frame of an answer.

Whatever only reads the vocabulary or the template is answered at once, on the intake thread; the rest by `embedding`.
"""

from __future__ import annotations

from collections.abc import Callable

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
from kolosal.engines.ipc.messages import FromWorker
from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.embedding_thread import EmbeddingThread
from kolosal.engines.worker.input_checks import check_tokens
from kolosal.engines.worker.result_frames import failed, failed_unexpectedly, result_frame
from kolosal.errors import KolosalError
from kolosal.schema import Prompt


class UnaryCalls:
    """Answers each question exactly once: with what was asked for, or with an error. Used by the intake thread."""

    def __init__(
        self, backend: Backend, tokenize: Callable[[Prompt], list[int]], put: Callable[[FromWorker], None]
    ) -> None:
        """`tokenize` makes a prompt's tokens as for a generation; `put` sends a frame and may be called from any thread."""
        self._backend = backend
        self._tokenize = tokenize
        self._put = put
        self._embeddings = EmbeddingThread(backend, put)

    def ask(self, request_id: int, call: Call) -> None:
        """Answer a question now, or have it answered later."""
        try:
            match call:
                case Tokenize():
                    answer: CallResult = self._tokenized(call)
                case Detokenize(tokens=tokens):
                    check_tokens(tokens, self._backend.info.n_vocab, "tokens")
                    answer = self._rendered(tokens)
                case Render(prompt=prompt, with_tokens=with_tokens):
                    answer = self._rendered(self._tokenize(prompt), with_tokens=with_tokens)
                case Embed() | Rank():
                    self._embeddings.ask(request_id, call)
                    return
            self._put(result_frame(request_id, answer))
        except KolosalError as exc:
            self._put(failed(request_id, exc))
        except Exception as exc:  # noqa: BLE001 - a defect of ours must cost one question, and not the engine
            self._put(failed_unexpectedly(request_id, exc))

    def forget(self, request_id: int) -> None:
        """Give up a question that is still being answered. Unknown ids are ignored."""
        self._embeddings.forget(request_id)

    def close(self, timeout_s: float) -> bool:
        """Free what questions have needed; False when that takes longer than it may."""
        return self._embeddings.close(timeout_s)

    def _tokenized(self, call: Tokenize) -> Tokenized:
        tokens = self._backend.tokenize(
            call.text, add_special=call.add_special, parse_special=call.parse_special
        )
        if not call.with_pieces:
            return Tokenized(tuple(tokens), ())
        return Tokenized(tuple(tokens), tuple(self._backend.written(t).decode("latin-1") for t in tokens))

    def _rendered(self, tokens: tuple[int, ...] | list[int], *, with_tokens: bool = False) -> Rendered:
        text = b"".join(map(self._backend.written, tokens))
        return Rendered(text.decode(errors="replace"), len(tokens), tuple(tokens) if with_tokens else ())
