"""UnaryCalls: what an engine does besides generating; one call, one result.

What only reads the vocabulary or the template is done at once, on the main thread; the rest by `EmbeddingThread`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

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
    """Ends each call with exactly one frame: its result, or an error. Used by the main thread."""

    def __init__(
        self, backend: Backend, tokenize: Callable[[Prompt], list[int]], emit: Callable[[FromWorker], None]
    ) -> None:
        """`tokenize` makes a prompt's tokens as for a generation; `emit` sends a frame and may be called from any thread."""
        self._backend = backend
        self._tokenize = tokenize
        self._emit = emit
        self._embeddings = EmbeddingThread(backend, emit)

    def start(self, request_id: int, call: Call) -> None:
        """Do what is called for now, or have it done on another thread."""
        try:
            match call:
                case Tokenize():
                    result: CallResult = self._tokenized(call)
                case Detokenize(tokens=tokens):
                    check_tokens(tokens, self._backend.info.n_vocab, "tokens")
                    result = self._rendered(tokens)
                case Render(prompt=prompt, with_tokens=with_tokens):
                    result = self._rendered(self._tokenize(prompt), with_tokens=with_tokens)
                case Embed() | Rank():
                    self._embeddings.submit(request_id, call)
                    return
            self._emit(result_frame(request_id, result))
        except KolosalError as exc:
            self._emit(failed(request_id, exc))
        except Exception as exc:  # noqa: BLE001 - a defect of ours must cost one call, and not the engine
            self._emit(failed_unexpectedly(request_id, exc))

    def cancel(self, request_id: int) -> None:
        """Give up a call that has not ended. Unknown ids are ignored."""
        self._embeddings.cancel(request_id)

    def close(self, timeout_s: float) -> bool:
        """Free what calls have needed; False when that takes longer than it may."""
        return self._embeddings.close(timeout_s)

    def _tokenized(self, call: Tokenize) -> Tokenized:
        tokens = self._backend.tokenize(
            call.text, add_special=call.add_special, parse_special=call.parse_special
        )
        if not call.with_pieces:
            return Tokenized(tuple(tokens), ())
        return Tokenized(tuple(tokens), tuple(self._backend.written(t).decode("latin-1") for t in tokens))

    def _rendered(self, tokens: Seq[int], *, with_tokens: bool = False) -> Rendered:
        text = b"".join(map(self._backend.written, tokens))
        return Rendered(text.decode(errors="replace"), len(tokens), tuple(tokens) if with_tokens else ())
