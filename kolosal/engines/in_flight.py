"""InFlightRequests: the requests of one engine, each from its submission to its end, over as many workers as that takes.

Owns the request ids, what a next worker needs to go on where the last one was, and the mistrust of what workers say: a
frame that cannot be true is a `FrameError`. Writes frames to the worker it is given, and starts none.
"""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import TypeAlias, assert_never

from kolosal.engines.ipc.calls import Call, CallResult, Embedded, Ranked
from kolosal.engines.ipc.messages import (
    Abort,
    Compiling,
    Failed,
    Fatal,
    FrameError,
    FromWorker,
    Pong,
    Progress,
    Ready,
    SequenceOutput,
    StepOutputs,
    Submit,
    ToWorker,
    UnaryCall,
    UnaryResult,
)
from kolosal.engines.stream import RequestStream
from kolosal.errors import KolosalError, error_named
from kolosal.observe.counts import Outcome
from kolosal.observe.observer import Observer
from kolosal.schema import GenerateRequest, TokenDelta

MAX_CRASHES = 2
"""A request that was in flight at so many deaths of a worker fails with the last: it may be what kills them."""

_MAX_CHARS_PER_TOKEN = 1024
"""No token of any vocabulary is longer."""


class InFlightGeneration:
    """A generation in flight, and how far it has come."""

    def __init__(self, request_id: int, request: GenerateRequest, stream: RequestStream) -> None:
        self.request_id = request_id
        self.stream = stream
        self.crashes = 0
        """Deaths of workers that it was in flight at."""
        self.is_compiling = False
        """Whether the worker compiles its grammar: if that ends the worker, it is not begun again."""
        self._request = request
        self._tokens = array("I")  # four bytes a token
        self._n_chars = 0
        self._n_logged = 0
        self._n_reported = 0
        """Tokens of the answer that came with a log-probability. It may come later than its token: with the text."""

    def frame(self) -> Submit:
        """The frame that begins it, or has another worker go on where the last one was."""
        return Submit(self.request_id, self._request, tuple(self._tokens), self._n_logged)

    def take(self, delta: TokenDelta, n_ctx: int) -> None:
        """Pass on what a step made. `n_ctx` is how many tokens a request can have.

        Raises:
            FrameError: no worker in its right mind says that.
        """
        n_tokens = len(self._tokens) + len(delta.tokens)
        n_chars = self._n_chars + len(delta.text)
        n_logged, n_reported = self._n_logged, self._n_reported
        if delta.logprobs:
            n_in_prompt = sum(logprobs.in_prompt for logprobs in delta.logprobs)
            n_logged += n_in_prompt
            n_reported += len(delta.logprobs) - n_in_prompt
            if n_reported > n_tokens:
                raise FrameError("more log-probabilities than tokens")
        if max(n_tokens, n_logged) > n_ctx:
            raise FrameError(f"more tokens than the {n_ctx} of the context window")
        if n_chars > _MAX_CHARS_PER_TOKEN * (n_tokens + 1):
            raise FrameError("more text than its tokens can hold")
        try:
            self._tokens += array("I", delta.tokens)
        except OverflowError as exc:
            raise FrameError("a token that no vocabulary has") from exc
        self._n_chars, self._n_logged, self._n_reported = n_chars, n_logged, n_reported
        self.stream.put(delta)

    def fail(self, error: KolosalError) -> None:
        self.stream.fail(error)


class InFlightCall:
    """A unary call in flight. `result` ends with what it returned, or with a `KolosalError`."""

    def __init__(self, request_id: int, call: Call) -> None:
        self.request_id = request_id
        self.result: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()
        self.crashes = 0
        """Deaths of workers that it was in flight at."""
        self._call = call

    def frame(self) -> UnaryCall:
        return UnaryCall(self.request_id, self._call)

    def end(self, result: CallResult) -> None:
        if not self.result.done():  # else its caller has left
            self.result.set_result(result)

    @property
    def n_tokens(self) -> int:
        """How many tokens were computed for it."""
        if self.outcome is not Outcome.COMPLETED:
            return 0
        match self.result.result():
            case Embedded(n_tokens=n_tokens):
                return sum(n_tokens)
            case Ranked(n_tokens=n_tokens):
                return n_tokens
            case _:
                return 0

    @property
    def outcome(self) -> Outcome:
        """How it ended; one that has not was left."""
        if not self.result.done() or self.result.cancelled():
            return Outcome.CANCELLED
        return Outcome.COMPLETED if self.result.exception() is None else Outcome.FAILED

    def fail(self, error: KolosalError) -> None:
        if not self.result.done():
            self.result.set_exception(error)


InFlightRequest: TypeAlias = InFlightGeneration | InFlightCall


class InFlightRequests:
    """All requests of an engine that have not ended. Used on the event loop only."""

    def __init__(
        self, engine_id: str, observer: Observer, on_empty: Callable[[], None], first_id: int = 1
    ) -> None:
        """`on_empty` is called whenever the last one has ended. `first_id`: ids before it may be of a daemon before this one."""
        self._engine_id = engine_id
        self._observer = observer
        self._on_empty = on_empty
        self._send: Callable[[ToWorker], None] | None = None
        self._n_ctx = 0
        self._requests: dict[int, InFlightRequest] = {}
        self._aborted: set[int] = set()  # and not yet confirmed by the worker: frames may be under way
        self._ids = itertools.count(first_id)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[InFlightRequest]:
        """In the order they came."""
        return iter([*self._requests.values()])

    async def wait_empty(self) -> None:
        """Wait until all have ended."""
        await self._empty.wait()

    # --- submitting ---

    def generate(self, request: GenerateRequest) -> RequestStream:
        """Submit a generation.

        Raises:
            PayloadTooLarge: it is longer than a frame may be.
        """
        request_id = next(self._ids)
        self._write(Submit(request_id, request))
        stream = RequestStream(partial(self.abort, request_id), self._observer.begin(self._engine_id))
        self.add(InFlightGeneration(request_id, request, stream))
        return stream

    async def call(self, call: Call) -> CallResult:
        """Submit a unary call, and wait for its result. A caller that leaves aborts it.

        Raises:
            PayloadTooLarge: it is longer than a frame may be.
            KolosalError: it was refused.
        """
        request = InFlightCall(next(self._ids), call)
        self._write(request.frame())
        self.add(request)
        try:
            return await request.result
        finally:
            self.abort(request.request_id)  # does nothing to one that has ended
            self._observer.call_ended(self._engine_id, call.kind, request.outcome, request.n_tokens)

    def add(self, request: InFlightRequest) -> None:
        """Note a request that was given to the worker."""
        self._requests[request.request_id] = request
        self._empty.clear()

    def abort(self, request_id: int) -> None:
        """Drop a request. Synchronous and idempotent: unknown ids are ignored."""
        if self._remove(request_id) is not None and self._send is not None:
            self._aborted.add(request_id)
            self._send(Abort(request_id))

    def _write(self, frame: ToWorker) -> None:
        if self._send is not None:  # else the next worker gets it
            self._send(frame)

    # --- workers ---

    def attach(self, send: Callable[[ToWorker], None], n_ctx: int) -> None:
        """A worker is ready, and gets what the last one left. `n_ctx` is how many tokens it allows one request."""
        self._send, self._n_ctx = send, n_ctx
        self.send_again([*self._requests])

    def send_again(self, request_ids: Iterable[int]) -> None:
        """Have the worker go on with these where another one was."""
        for request_id in request_ids:
            request = self._requests.get(request_id)
            if request is None or self._send is None:
                continue
            try:
                self._send(request.frame())
            except KolosalError as exc:
                self._fail(request_id, exc)

    def detach(self) -> None:
        """The worker is gone: what is in flight waits for the next."""
        self._send = None
        self._aborted.clear()

    def fail_crashed(
        self, error: KolosalError, while_compiling: KolosalError, request_ids: Collection[int] | None = None
    ) -> None:
        """Note that the worker died, or of several the one that had these requests; fail those for which that was once too often, or
        whose grammar may have done it."""
        for request in self:
            if request_ids is not None and request.request_id not in request_ids:
                continue
            request.crashes += 1
            if isinstance(request, InFlightGeneration) and request.is_compiling:
                self._fail(request.request_id, while_compiling)
            elif request.crashes >= MAX_CRASHES:
                self._fail(request.request_id, error)

    def fail_all(self, error: KolosalError) -> None:
        """Fail all."""
        for request in self:
            self._fail(request.request_id, error)

    def take(self, frame: FromWorker) -> None:
        """Pass on what a worker said.

        Raises:
            FrameError: it cannot be true.
        """
        match frame:
            case StepOutputs(outputs=outputs):
                for output in outputs:
                    self._on_output(output)
            case UnaryResult(request_id=request_id, result=result):
                self._on_result(request_id, result)
            case Failed(request_id=request_id):
                if request_id in self._requests:
                    self._fail(request_id, _error(frame))
                else:
                    self._confirm_abort(request_id)
            case Compiling(request_id=request_id, begins=begins):
                self._on_compiling(request_id, begins=begins)
            case Ready() | Progress() | Pong() | Fatal():
                raise FrameError(f"an unexpected {frame.tag} frame")
            case _:
                assert_never(frame)

    def _on_output(self, output: SequenceOutput) -> None:
        ended = output.delta.finish_reason is not None
        request = self._requests.get(output.request_id)
        if isinstance(request, InFlightGeneration):
            request.take(output.delta, self._n_ctx)
            if ended:
                self._remove(output.request_id)
        elif output.request_id not in self._aborted:
            raise FrameError(f"output for request {output.request_id}, which it was not given")
        elif ended:
            self._aborted.discard(output.request_id)

    def _on_result(self, request_id: int, result: CallResult) -> None:
        request = self._requests.get(request_id)
        if isinstance(request, InFlightCall):
            self._remove(request_id)
            request.end(result)
        else:
            self._confirm_abort(request_id)

    def _on_compiling(self, request_id: int, *, begins: bool) -> None:
        request = self._requests.get(request_id)
        if isinstance(request, InFlightGeneration):
            request.is_compiling = begins
        elif request_id not in self._aborted:
            raise FrameError(f"a grammar of request {request_id}, which it was not given")

    def _confirm_abort(self, request_id: int) -> None:
        """Note that a request, which must be one that was aborted, has ended."""
        if request_id not in self._aborted:
            raise FrameError(f"an end of request {request_id}, which it was not given")
        self._aborted.discard(request_id)

    # --- ending ---

    def _fail(self, request_id: int, error: KolosalError) -> None:
        request = self._remove(request_id)
        if request is not None:
            request.fail(error)

    def _remove(self, request_id: int) -> InFlightRequest | None:
        request = self._requests.pop(request_id, None)
        if request is not None and not self._requests:
            self._empty.set()
            self._on_empty()
        return request


def _error(frame: Failed) -> KolosalError:
    return error_named(
        frame.error,
        frame.message,
        param=frame.param,
        n_prompt_tokens=frame.n_prompt_tokens,
        n_ctx=frame.n_ctx,
    )
