"""UnaryCalls: what an engine is asked besides generating; one call, one result.

What only reads the vocabulary or the template is done at once, on the main thread. Embeddings and ranks have a thread of their
own, so that neither preprocessor nor engine waits for them; native contexts stay behind `Embedder`, whose one user it is.
"""

from __future__ import annotations

import base64
import math
import queue
import sys
import threading
import traceback
from array import array
from collections import deque
from collections.abc import Callable, Generator
from collections.abc import Sequence as Seq
from typing import TypeAlias

from kolosal.engines.ipc.calls import (
    Call,
    CallResult,
    Detokenize,
    Embed,
    Embedded,
    Rank,
    Ranked,
    Render,
    Rendered,
    Tokenize,
    Tokenized,
    portions,
)
from kolosal.engines.ipc.messages import FromWorker
from kolosal.engines.worker.backend import Backend, BackendError, Embedder, OutOfMemory
from kolosal.engines.worker.input_checks import begins_with_bos, check_tokens
from kolosal.engines.worker.rerank_input import rerank_tokens
from kolosal.engines.worker.result_frames import failed, result_frame
from kolosal.engines.worker.templates.special_tokens import SpecialTokenEscaper
from kolosal.errors import (
    ContextLengthExceeded,
    GenerationFailed,
    InsufficientMemory,
    InvalidRequest,
    KolosalError,
    UnsupportedFeature,
)
from kolosal.schema import Prompt, TextPrompt, TokensPrompt

_Job: TypeAlias = Generator[None, None, None]
"""The work on one call, which pauses after each batch."""

_DONE = object()

_REST_S = 1.0
"""How long the embedding thread waits for the next call before it ends: its team of OpenMP threads would slow the engine's steps
(`threads.py`)."""

_RANK = "rank"
"""The pooling of models that rank."""


class UnaryCalls:
    """Ends each call with exactly one frame: its result, or an error, also where it was cancelled: the daemon waits for it.

    Its methods are called by the main thread.
    """

    def __init__(
        self,
        backend: Backend,
        written: Callable[[Prompt], tuple[str, list[int]]],
        emit: Callable[[FromWorker], None],
        *,
        rest_s: float = _REST_S,
    ) -> None:
        """`written` makes a prompt's text and tokens as for a generation; `emit` sends a frame and may be called from any thread."""
        self._rest_s = rest_s
        self._backend = backend
        self._written = written
        self._emit = emit
        self._escaper = SpecialTokenEscaper(backend)
        # Unbounded here: the daemon admits at most n_parallel + max_queued requests per engine.
        self._inbox: queue.SimpleQueue[tuple[int, Embed | Rank] | None] = queue.SimpleQueue()
        self._active: set[int] = set()  # the main thread adds and discards, the other one looks
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()  # whether it ends, or gets one more
        self._embedder: Embedder | None = None

    def start(self, request_id: int, call: Call) -> None:
        """Do what is called for now, or have it done on the other thread, which starts with the first such call."""
        try:
            match call:
                case Tokenize():
                    result: CallResult = self._tokenized(call)
                case Detokenize(tokens=tokens):
                    check_tokens(tokens, self._backend.info.n_vocab, "tokens")
                    text = b"".join(map(self._backend.written, tokens))
                    result = Rendered(text.decode(errors="replace"), len(tokens))
                case Render(prompt=prompt, with_tokens=with_tokens):
                    written, made = self._written(prompt)
                    result = Rendered(written, len(made), tuple(made) if with_tokens else ())
                case Embed() | Rank():
                    self._check(call)
                    self._active.add(request_id)
                    self._hand_over(request_id, call)
                    return
            self._emit(result_frame(request_id, result))
        except Exception as exc:  # noqa: BLE001 - a defect of ours must cost one call, and not the engine
            self._emit(failed(request_id, exc))

    def cancel(self, request_id: int) -> None:
        """Compute nothing more for a call. Unknown ids are ignored."""
        self._active.discard(request_id)

    def close(self, timeout_s: float) -> bool:
        """Stop after the batch at hand and free the context; False when that takes longer than it may."""
        self._active.clear()
        self._inbox.put(None)
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
            if thread.is_alive():
                return False
        if self._embedder is not None:
            self._embedder.close()
        return True

    def _hand_over(self, request_id: int, call: Embed | Rank) -> None:
        with self._thread_lock:
            self._inbox.put((request_id, call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)
                self._thread.start()

    def _tokenized(self, call: Tokenize) -> Tokenized:
        begun = call.parse_special and begins_with_bos(call.text, self._backend)
        tokens = self._backend.tokenize(
            call.text, add_special=call.add_special and not begun, parse_special=call.parse_special
        )
        written = map(self._backend.written, tokens if call.with_pieces else ())
        return Tokenized(tuple(tokens), tuple(piece.decode("latin-1") for piece in written))

    def _check(self, call: Embed | Rank) -> None:
        info = self._backend.info
        match call:
            case Rank() if info.pooling != _RANK:
                raise UnsupportedFeature(
                    "This model cannot rank documents: its file names no pooling of type rank"
                )
            case Embed() if info.pooling == _RANK:
                raise UnsupportedFeature("This model ranks documents and makes no embeddings")
            case Embed(dimensions=dimensions) if dimensions is not None and dimensions > info.n_embd:
                raise InvalidRequest(
                    f"dimensions must be at most {info.n_embd}, as many as this model has, not {dimensions}",
                    param="dimensions",
                )

    # --- the embedding thread ---

    def _run(self) -> None:
        """Work on all calls round robin, a batch of each, so that nobody waits for another's thousand texts."""
        jobs: deque[_Job] = deque()
        while True:
            while not jobs or not self._inbox.empty():
                try:
                    item = self._inbox.get(timeout=self._rest_s)
                except queue.Empty:
                    if self._may_end():
                        return
                    continue
                if item is None:
                    return
                jobs.append(self._job(*item))
            job = jobs.popleft()
            if next(job, _DONE) is not _DONE:
                jobs.append(job)

    def _may_end(self) -> bool:
        """Whether still nothing has come; then the next call starts another thread."""
        with self._thread_lock:
            if self._inbox.empty():
                self._thread = None
            return self._thread is None

    def _job(self, request_id: int, call: Embed | Rank) -> _Job:
        try:
            end: FromWorker = result_frame(request_id, (yield from self._result(request_id, call)))
        except KolosalError as exc:
            end = failed(request_id, exc)
        except OutOfMemory as exc:
            end = failed(request_id, InsufficientMemory(str(exc)))
        except BackendError as exc:
            end = failed(request_id, GenerationFailed(f"The model could not compute the embeddings: {exc}"))
        except Exception as exc:  # noqa: BLE001 - a defect here must not end the streams of others
            traceback.print_exc(file=sys.stderr)
            end = failed(request_id, GenerationFailed(f"The embeddings failed: {type(exc).__name__}"))
        self._active.discard(request_id)
        self._emit(end)

    def _result(self, request_id: int, call: Embed | Rank) -> Generator[None, None, CallResult]:
        embedder = self._embedder = self._embedder or self._backend.open_embedder()
        match call:
            case Embed():
                inputs = [
                    _checked(self._tokens(prompt, index), embedder.max_tokens, "input", index)
                    for index, prompt in enumerate(call.inputs, call.first)
                ]
                vectors = yield from self._vectors(embedder, request_id, inputs)
                packed = tuple(pack(vector, call.dimensions) for vector in vectors)
                return Embedded(packed, tuple(map(len, inputs)))
            case Rank():
                inputs = [
                    _checked(
                        rerank_tokens(call.query, text, self._backend, self._escaper),
                        embedder.max_tokens,
                        "documents",
                        index,
                    )
                    for index, text in enumerate(call.documents, call.first)
                ]
                scores = [vector[0] for vector in (yield from self._vectors(embedder, request_id, inputs))]
                if not all(map(math.isfinite, scores)):
                    raise GenerationFailed("The model gave a score that is no number")
                return Ranked(tuple(scores), sum(map(len, inputs)))

    def _tokens(self, prompt: TextPrompt | TokensPrompt, index: int) -> list[int]:
        match prompt:
            case TextPrompt(text=text):
                return self._backend.tokenize(text, add_special=True, parse_special=True)
            case TokensPrompt(tokens=tokens):
                check_tokens(tokens, self._backend.info.n_vocab, f"input.{index}")
                return list(tokens)

    def _vectors(
        self, embedder: Embedder, request_id: int, inputs: Seq[list[int]]
    ) -> Generator[None, None, list[array[float]]]:
        """One vector for each input, packed as densely as the embedder takes them."""
        lengths = [len(tokens) for tokens in inputs]
        vectors: list[array[float]] = []
        for batch in portions(lengths, embedder.batch_tokens, embedder.batch_inputs):
            if request_id not in self._active:
                raise GenerationFailed("Nobody waits for these embeddings any more")
            vectors += embedder.pool(inputs[batch])
            yield
        return vectors


def _checked(tokens: list[int], max_tokens: int, field: str, index: int) -> list[int]:
    if not tokens:
        raise InvalidRequest(f"{field}.{index} is empty", param=field)
    if len(tokens) > max_tokens:
        raise ContextLengthExceeded.of(len(tokens), max_tokens, where=f"{field}.{index}", param=field)
    return tokens


def pack(vector: array[float], dimensions: int | None) -> str:
    """The first `dimensions` numbers of a vector, scaled to length 1, as little-endian float32 in base64.

    Raises:
        GenerationFailed: the vector has no length, or one that is no number.
    """
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    if not math.isfinite(length) or length == 0:
        raise GenerationFailed(f"The model gave a vector of length {length}")
    unit = array("f", map(length.__rtruediv__, kept))
    if sys.byteorder == "big":
        unit.byteswap()
    return base64.b64encode(unit.tobytes()).decode()
