"""Embeddings and ranks: computed on a thread of their own, so that neither intake nor engine waits for them.

Owns the order of the questions and how their inputs are packed. Native contexts stay behind `Embedder`, whose one user
this thread is.
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

from kolosal.engines.ipc.calls import Embed, Embedded, Rank, Ranked, portions
from kolosal.engines.ipc.messages import FromWorker, UnaryResult
from kolosal.engines.worker.backend import Backend, BackendError, Embedder, OutOfMemory
from kolosal.engines.worker.input_checks import check_tokens
from kolosal.engines.worker.rerank_input import RerankInput
from kolosal.engines.worker.result_frames import failed, result_frame
from kolosal.errors import (
    ContextLengthExceeded,
    GenerationFailed,
    InsufficientMemory,
    InvalidRequest,
    KolosalError,
    UnsupportedFeature,
)
from kolosal.schema import TextPrompt, TokensPrompt

Job: TypeAlias = Generator[None, None, None]
"""The work on one question, which pauses after each batch."""

_DONE = object()

_RANKS = "rank"
"""The pooling of models that rank."""


class EmbeddingThread:
    """Answers `Embed` and `Rank`.

    `ask`, `forget` and `close` are called by the intake thread. Each question is answered exactly once, also one that was
    forgotten: the daemon waits for its end.
    """

    def __init__(self, backend: Backend, put: Callable[[FromWorker], None]) -> None:
        """`put` sends a frame, from any thread."""
        self._backend = backend
        self._put = put
        self._pairs = RerankInput(backend)
        # Unbounded here: the daemon admits at most n_parallel + max_queued requests per engine.
        self._questions: queue.SimpleQueue[tuple[int, Embed | Rank] | None] = queue.SimpleQueue()
        self._wanted: set[int] = set()  # the intake thread adds and discards, the other one looks
        self._thread: threading.Thread | None = None
        self._embedder: Embedder | None = None

    def ask(self, request_id: int, call: Embed | Rank) -> None:
        """Have a question answered.

        Raises:
            UnsupportedFeature: this model is not made for that.
            InvalidRequest: more dimensions are asked for than there are.
        """
        self._check(call)
        self._wanted.add(request_id)
        self._questions.put((request_id, call))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)
            self._thread.start()

    def forget(self, request_id: int) -> None:
        """Compute nothing more for a question. Unknown ids are ignored."""
        self._wanted.discard(request_id)

    def close(self, timeout_s: float) -> bool:
        """Stop after the batch at hand and free the context; False when that takes longer than it may."""
        self._wanted.clear()
        self._questions.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _check(self, call: Embed | Rank) -> None:
        info = self._backend.info
        match call:
            case Rank() if info.pooling != _RANKS:
                raise UnsupportedFeature(
                    "This model cannot rank documents: its file names no pooling of type rank"
                )
            case Embed() if info.pooling == _RANKS:
                raise UnsupportedFeature("This model ranks documents and makes no embeddings")
            case Embed(dimensions=dimensions) if dimensions is not None and dimensions > info.n_embd:
                raise InvalidRequest(
                    f"dimensions must be at most {info.n_embd}, as many as this model has, not {dimensions}",
                    param="dimensions",
                )

    # --- the embedding thread ---

    def _run(self) -> None:
        """Work on all questions in turn, a batch of each, so that nobody waits for another's thousand texts."""
        jobs: deque[Job] = deque()
        try:
            while True:
                while not jobs or not self._questions.empty():
                    question = self._questions.get()
                    if question is None:
                        return
                    jobs.append(self._job(*question))
                job = jobs.popleft()
                if next(job, _DONE) is not _DONE:
                    jobs.append(job)
        finally:
            if self._embedder is not None:
                self._embedder.close()

    def _job(self, request_id: int, call: Embed | Rank) -> Job:
        """Answers one question; pauses after each batch."""
        try:
            end: FromWorker = yield from self._answer(request_id, call)
        except KolosalError as exc:
            end = failed(request_id, exc)
        except OutOfMemory as exc:
            end = failed(request_id, InsufficientMemory(str(exc)))
        except BackendError as exc:
            end = failed(request_id, GenerationFailed(f"The model could not compute the embeddings: {exc}"))
        except Exception as exc:  # noqa: BLE001 - a defect here must not end the streams of others
            traceback.print_exc(file=sys.stderr)
            end = failed(request_id, GenerationFailed(f"The embeddings failed: {type(exc).__name__}"))
        self._wanted.discard(request_id)
        self._put(end)

    def _answer(self, request_id: int, call: Embed | Rank) -> Generator[None, None, UnaryResult]:
        if self._embedder is None:
            self._embedder = self._backend.open_embedder()
        match call:
            case Embed():
                inputs = [self._input(prompt, call.first + index) for index, prompt in enumerate(call.inputs)]
                vectors = yield from self._vectors(request_id, inputs)
                packed = tuple(pack(vector, call.dimensions) for vector in vectors)
                return result_frame(request_id, Embedded(packed, tuple(map(len, inputs))))
            case Rank():
                inputs = [
                    self._pair(call.query, text, call.first + index)
                    for index, text in enumerate(call.documents)
                ]
                scores = [vector[0] for vector in (yield from self._vectors(request_id, inputs))]
                if not all(map(math.isfinite, scores)):
                    raise GenerationFailed("The model gave a score that is no number")
                return result_frame(request_id, Ranked(tuple(scores), sum(map(len, inputs))))

    def _vectors(self, request_id: int, inputs: Seq[list[int]]) -> Generator[None, None, list[array[float]]]:
        """One vector for each input, packed as densely as the embedder takes them."""
        assert self._embedder is not None  # noqa: S101 - opened by the caller
        lengths = [len(tokens) for tokens in inputs]
        vectors: list[array[float]] = []
        for batch in portions(lengths, self._embedder.batch_tokens, self._embedder.batch_inputs):
            if request_id not in self._wanted:
                raise GenerationFailed("Nobody waits for these embeddings any more")
            vectors += self._embedder.pool(inputs[batch])
            yield
        return vectors

    def _input(self, prompt: TextPrompt | TokensPrompt, index: int) -> list[int]:
        match prompt:
            case TextPrompt(text=text):
                tokens = self._backend.tokenize(text, add_special=True, parse_special=True)
            case TokensPrompt(tokens=given):
                check_tokens(given, self._backend.info.n_vocab, f"input.{index}")
                tokens = list(given)
        return self._checked(tokens, "input", index)

    def _pair(self, query: str, document: str, index: int) -> list[int]:
        return self._checked(self._pairs.tokens(query, document), "documents", index)

    def _checked(self, tokens: list[int], field: str, index: int) -> list[int]:
        assert self._embedder is not None  # noqa: S101 - opened by the caller
        if not tokens:
            raise InvalidRequest(f"{field}.{index} is empty", param=field)
        if len(tokens) > self._embedder.max_tokens:
            raise ContextLengthExceeded(
                f"{field}.{index} has {len(tokens)} tokens, but this model takes at most {self._embedder.max_tokens}"
                " at once here",
                param=field,
            )
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
