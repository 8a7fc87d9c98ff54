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

from kolosal.engines.ipc.calls import Answer, Call
from kolosal.engines.ipc.messages import (
    Answered,
    Ask,
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

    def take(self, delta: TokenDelta, window: int) -> None:
        """Pass on what a step made.

        Raises:
            FrameError: no worker in its right mind says that; `window` is how many tokens a request can have.
        """
        n_tokens = len(self._tokens) + len(delta.tokens)
        n_chars = self._n_chars + len(delta.text)
        n_logged = self._n_logged
        if delta.logprobs:
            n_in_prompt = sum(logprobs.in_prompt for logprobs in delta.logprobs)
            n_logged += n_in_prompt
            if len(delta.logprobs) - n_in_prompt > len(delta.tokens):
                raise FrameError("more log-probabilities than tokens")
        if max(n_tokens, n_logged) > window:
            raise FrameError(f"more tokens than the {window} of the context window")
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
    """A question in flight."""

    def __init__(self, call: Call) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.crashes = 0
        self._call = call

    def frame(self, request_id: int) -> Ask:
        """What a worker is told."""
        return Ask(request_id, self._call)

    def end(self, answer: Answer) -> None:
        """It was answered."""
        if not self.answer.done():  # else its caller has left
            self.answer.set_result(answer)

    def fail(self, error: KolosalError) -> None:
        """End it."""
        if not self.answer.done():
            self.answer.set_exception(error)


Flight: TypeAlias = InFlightGeneration | InFlightCall


class InFlightRequests:
    """All requests of an engine that have not ended. Used on the event loop only."""

    def __init__(self, on_empty: Callable[[], None]) -> None:
        """`on_empty` is called whenever the last one has ended."""
        self.window = 0
        """Tokens that one request can have, as the worker says."""
        self._on_empty = on_empty
        self._flights: dict[int, Flight] = {}
        self._aborted: set[int] = set()  # and not yet confirmed by the worker: frames may be under way
        self._ids = itertools.count(1)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._flights)

    def items(self) -> tuple[tuple[int, Flight], ...]:
        """All, with their ids, in the order they came."""
        return tuple(self._flights.items())

    def next_id(self) -> int:
        """An id that no request of this engine has had."""
        return next(self._ids)

    def add(self, request_id: int, flight: Flight) -> None:
        """Note a request that was given to the worker."""
        self._flights[request_id] = flight
        self._empty.clear()

    def abort(self, request_id: int, *, confirmed: bool) -> bool:
        """Forget a request; whether there was such a one. `confirmed`: a worker lives, which will say that it ended."""
        if self._remove(request_id) is None:
            return False
        if confirmed:
            self._aborted.add(request_id)
        return True

    async def empty(self) -> None:
        """Wait until all have ended."""
        await self._empty.wait()

    def crashed(self) -> list[Flight]:
        """Note that the worker is gone; takes out those for which that was once too often."""
        self._aborted.clear()
        for flight in self._flights.values():
            flight.crashes += 1
        lost = [request_id for request_id, flight in self.items() if flight.crashes >= MAX_CRASHES]
        return self._take_out(lost)

    def fail(self, request_id: int, error: KolosalError) -> None:
        """End one."""
        flight = self._remove(request_id)
        if flight is not None:
            flight.fail(error)

    def fail_all(self, error: KolosalError) -> None:
        """End all."""
        self._aborted.clear()
        for flight in self._take_out([*self._flights]):
            flight.fail(error)

    def take(self, frame: FromWorker) -> None:
        """Pass on what a worker said.

        Raises:
            FrameError: it cannot be true.
        """
        match frame:
            case StepOutputs(outputs=outputs):
                for output in outputs:
                    self._on_output(output)
            case Answered(request_id=request_id):
                self._on_answer(request_id, frame.answer)
            case Failed(request_id=request_id):
                self._on_failure(request_id, error_named(frame.error, frame.message, param=frame.param))
            case Ready() | Progress() | Pong() | Fatal():
                raise FrameError(f"an unexpected {frame.tag} frame")
            case _:
                assert_never(frame)

    def _on_output(self, output: SequenceOutput) -> None:
        ended = output.delta.finish_reason is not None
        flight = self._flights.get(output.request_id)
        if isinstance(flight, InFlightGeneration):
            flight.take(output.delta, self.window)
            if ended:
                self._remove(output.request_id)
        elif output.request_id not in self._aborted:
            raise FrameError(f"output for request {output.request_id}, which it was not given")
        elif ended:
            self._aborted.discard(output.request_id)

    def _on_answer(self, request_id: int, answer: Answer) -> None:
        flight = self._flights.get(request_id)
        if isinstance(flight, InFlightCall):
            self._remove(request_id)
            flight.end(answer)
        else:
            self._confirm(request_id)

    def _on_failure(self, request_id: int, error: KolosalError) -> None:
        if request_id in self._flights:
            self.fail(request_id, error)
        else:
            self._confirm(request_id)

    def _confirm(self, request_id: int) -> None:
        """Note that a request, which must be one that was aborted, has ended."""
        if request_id not in self._aborted:
            raise FrameError(f"an end of request {request_id}, which it was not given")
        self._aborted.discard(request_id)

    def _take_out(self, request_ids: list[int]) -> list[Flight]:
        return [flight for request_id in request_ids if (flight := self._remove(request_id)) is not None]

    def _remove(self, request_id: int) -> Flight | None:
        flight = self._flights.pop(request_id, None)
        if flight is not None and not self._flights:
            self._empty.set()
            self._on_empty()
        return flight
