"""InFlightRequests: the requests of one engine, each from its submission to its end, over as many workers as that takes.

Owns the request ids, what a next worker needs to go on where the last one was, and the mistrust of what workers say: a
frame that cannot be true is a `FrameError`. Knows no process and starts nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections.abc import Callable
from typing import TypeAlias, assert_never

from kolosal.engines.ipc.calls import Call, CallResult
from kolosal.engines.ipc.messages import (
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
    UnaryCall,
    UnaryResult,
)
from kolosal.engines.stream import RequestStream
from kolosal.errors import KolosalError, error_named
from kolosal.schema import GenerateRequest, TokenDelta

MAX_CRASHES = 2
"""A request that was in flight at so many deaths of a worker fails with the last: it may be what kills them."""

_MAX_CHARS_PER_TOKEN = 1024
"""No token of any vocabulary is longer."""


class InFlightGeneration:
    """A generation in flight, and how far it has come."""

    def __init__(self, request: GenerateRequest, stream: RequestStream) -> None:
        self.stream = stream
        self.crashes = 0
        self._request = request
        self._tokens = array("I")  # four bytes a token
        self._n_chars = 0
        self._n_logged = 0

    def frame(self, request_id: int) -> Submit:
        """What a worker is told to begin it, or to go on with it."""
        return Submit(request_id, self._request, tuple(self._tokens), self._n_logged)

    def take(self, delta: TokenDelta, n_ctx: int) -> None:
        """Pass on what a step made. `n_ctx` is how many tokens a request can have.

        Raises:
            FrameError: no worker in its right mind says that.
        """
        n_tokens = len(self._tokens) + len(delta.tokens)
        n_chars = self._n_chars + len(delta.text)
        n_logged = self._n_logged
        if delta.logprobs:
            n_in_prompt = sum(logprobs.in_prompt for logprobs in delta.logprobs)
            n_logged += n_in_prompt
            if len(delta.logprobs) - n_in_prompt > len(delta.tokens):
                raise FrameError("more log-probabilities than tokens")
        if max(n_tokens, n_logged) > n_ctx:
            raise FrameError(f"more tokens than the {n_ctx} of the context window")
        if n_chars > _MAX_CHARS_PER_TOKEN * (n_tokens + 1):
            raise FrameError("more text than its tokens can hold")
        try:
            self._tokens += array("I", delta.tokens)
        except OverflowError as exc:
            raise FrameError("a token that no vocabulary has") from exc
        self._n_chars, self._n_logged = n_chars, n_logged
        self.stream.put(delta)

    def fail(self, error: KolosalError) -> None:
        """End it."""
        self.stream.fail(error)


class InFlightCall:
    """A unary call in flight. `result` ends with what it returned, or with a `KolosalError`."""

    def __init__(self, call: Call) -> None:
        self.result: asyncio.Future[CallResult] = asyncio.get_running_loop().create_future()
        self.crashes = 0
        self._call = call

    def frame(self, request_id: int) -> UnaryCall:
        """What a worker is told."""
        return UnaryCall(request_id, self._call)

    def end(self, result: CallResult) -> None:
        """It returned."""
        if not self.result.done():  # else its caller has left
            self.result.set_result(result)

    def fail(self, error: KolosalError) -> None:
        """End it."""
        if not self.result.done():
            self.result.set_exception(error)


InFlightRequest: TypeAlias = InFlightGeneration | InFlightCall


class InFlightRequests:
    """All requests of an engine that have not ended. Used on the event loop only."""

    def __init__(self, on_empty: Callable[[], None]) -> None:
        """`on_empty` is called whenever the last one has ended."""
        self.n_ctx = 0
        """Tokens that one request can have, as the worker says."""
        self._on_empty = on_empty
        self._requests: dict[int, InFlightRequest] = {}
        self._aborted: set[int] = set()  # and not yet confirmed by the worker: frames may be under way
        self._ids = itertools.count(1)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._requests)

    def items(self) -> tuple[tuple[int, InFlightRequest], ...]:
        """All, with their ids, in the order they came."""
        return tuple(self._requests.items())

    def next_id(self) -> int:
        """An id that no request of this engine has had."""
        return next(self._ids)

    def add(self, request_id: int, request: InFlightRequest) -> None:
        """Note a request that was given to the worker."""
        self._requests[request_id] = request
        self._empty.clear()

    def abort(self, request_id: int, *, worker_lives: bool) -> bool:
        """Drop a request; whether there was such a one. A worker that lives will still say that it ended."""
        if self._remove(request_id) is None:
            return False
        if worker_lives:
            self._aborted.add(request_id)
        return True

    async def wait_empty(self) -> None:
        """Wait until all have ended."""
        await self._empty.wait()

    def take_crashed(self) -> list[InFlightRequest]:
        """Note that the worker is gone; takes out those for which that was once too often."""
        self._aborted.clear()
        for request in self._requests.values():
            request.crashes += 1
        return self._take_out([key for key, request in self.items() if request.crashes >= MAX_CRASHES])

    def fail(self, request_id: int, error: KolosalError) -> None:
        """End one."""
        request = self._remove(request_id)
        if request is not None:
            request.fail(error)

    def fail_all(self, error: KolosalError) -> None:
        """End all."""
        self._aborted.clear()
        for request in self._take_out([*self._requests]):
            request.fail(error)

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
                self._on_failure(request_id, error_named(frame.error, frame.message, param=frame.param))
            case Ready() | Progress() | Pong() | Fatal():
                raise FrameError(f"an unexpected {frame.tag} frame")
            case _:
                assert_never(frame)

    def _on_output(self, output: SequenceOutput) -> None:
        ended = output.delta.finish_reason is not None
        request = self._requests.get(output.request_id)
        if isinstance(request, InFlightGeneration):
            request.take(output.delta, self.n_ctx)
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

    def _on_failure(self, request_id: int, error: KolosalError) -> None:
        if request_id in self._requests:
            self.fail(request_id, error)
        else:
            self._confirm_abort(request_id)

    def _confirm_abort(self, request_id: int) -> None:
        """Note that a request, which must be one that was aborted, has ended."""
        if request_id not in self._aborted:
            raise FrameError(f"an end of request {request_id}, which it was not given")
        self._aborted.discard(request_id)

    def _take_out(self, request_ids: list[int]) -> list[InFlightRequest]:
        return [request for key in request_ids if (request := self._remove(key)) is not None]

    def _remove(self, request_id: int) -> InFlightRequest | None:
        request = self._requests.pop(request_id, None)
        if request is not None and not self._requests:
            self._empty.set()
            self._on_empty()
        return request
