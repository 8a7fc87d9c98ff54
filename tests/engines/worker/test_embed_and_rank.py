"""Embeddings and ranks on their thread, over the fake backend."""

from __future__ import annotations

import base64
import math
import struct
import threading
from array import array
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.ipc.calls import Call, Embed, Embedded, Rank, Ranked, portions
from kolosal.engines.ipc.messages import Failed, FromWorker, UnaryResult
from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.unary_calls import UnaryCalls, pack
from kolosal.errors import GenerationFailed
from kolosal.schema import Prompt, TextPrompt, TokensPrompt
from tests.engines.worker.helpers import InProcessWorker, ask, fake_backend

DEADLINE_S = 30.0


class Caller:
    """Unary calls over a backend, and the frames that end them."""

    def __init__(self, backend: Backend, **settings: float) -> None:
        self.frames: dict[int, FromWorker] = {}
        self._changed = threading.Condition()
        self.calls = UnaryCalls(backend, self._no_prompts, self._put, **settings)

    def _put(self, frame: FromWorker) -> None:
        assert isinstance(frame, UnaryResult | Failed)
        with self._changed:
            assert frame.request_id not in self.frames, "ended twice"
            self.frames[frame.request_id] = frame
            self._changed.notify()

    def _no_prompts(self, _prompt: Prompt) -> tuple[str, list[int]]:
        raise AssertionError("nothing is rendered here")

    def answer(self, call: Call, request_id: int = 1) -> FromWorker:
        self.calls.start(request_id, call)
        return self.wait(request_id)

    def wait(self, request_id: int) -> FromWorker:
        with self._changed:
            assert self._changed.wait_for(lambda: request_id in self.frames, DEADLINE_S), "no result"
            return self.frames[request_id]

    def error(self, call: Call, request_id: int = 1) -> Failed:
        frame = self.answer(call, request_id)
        assert isinstance(frame, Failed)
        return frame


class FakeCaller(Caller):
    """The same over a fake backend."""

    def __init__(self, *faults: str, **parameters: int) -> None:
        self.backend = fake_backend(*faults, **parameters)
        super().__init__(self.backend)


OpenCaller = Callable[..., FakeCaller]


@pytest.fixture
def open_caller() -> Iterator[OpenCaller]:
    """Opens callers that are closed at the end: `open_caller("rank", n_ctx=16)`."""
    opened: list[FakeCaller] = []

    def open_one(*faults: str, **parameters: int) -> FakeCaller:
        opened.append(FakeCaller(*faults, **parameters))
        return opened[-1]

    yield open_one
    for worker in opened:
        assert worker.calls.close(DEADLINE_S)


def texts(*given: str) -> Embed:
    return Embed(tuple(map(TextPrompt, given)))


def numbers(vector: str) -> tuple[float, ...]:
    data = base64.b64decode(vector)
    return struct.unpack(f"<{len(data) // 4}f", data)


# --- embeddings ---


def test_each_input_gets_its_vector_in_its_place(open_caller: OpenCaller) -> None:
    """The fake counts the remainders by 4; a first token with the remainder 0 is added to texts."""
    frame = open_caller().answer(Embed((TokensPrompt((1, 5, 9)), TextPrompt("d"), TokensPrompt((2,)))))

    assert isinstance(frame, UnaryResult)
    assert isinstance(frame.result, Embedded)
    assert [numbers(vector) for vector in frame.result.vectors] == [(0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0)]
    assert frame.result.n_tokens == (3, 2, 1)


def test_vector_has_the_length_one(open_caller: OpenCaller) -> None:
    frame = open_caller().answer(texts("any text"))

    assert isinstance(frame, UnaryResult)
    assert isinstance(frame.result, Embedded)
    assert math.hypot(*numbers(frame.result.vectors[0])) == pytest.approx(1)


def test_fewer_dimensions_are_the_first_ones(open_caller: OpenCaller) -> None:
    frame = open_caller().answer(Embed((TokensPrompt((1, 2, 3)),), dimensions=2))

    assert frame == UnaryResult(1, Embedded((base64.b64encode(struct.pack("<2f", 0, 1)).decode(),), (3,)))


def test_more_dimensions_than_there_are_are_refused(open_caller: OpenCaller) -> None:
    error = open_caller().error(Embed((TextPrompt("a"),), dimensions=5))

    assert (error.error, error.param) == ("InvalidRequest", "dimensions")
    assert "4" in error.message


def test_input_that_is_too_long_is_refused_with_both_numbers(open_caller: OpenCaller) -> None:
    error = open_caller(n_ctx=16).error(Embed((TextPrompt("a"), TextPrompt("a" * 16)), first=7))

    assert (error.error, error.param) == ("ContextLengthExceeded", "input")
    assert "17 tokens > 16 maximum in input.8" in error.message
    assert (error.n_prompt_tokens, error.n_ctx) == (17, 16)


def test_longest_input_is_taken(open_caller: OpenCaller) -> None:
    assert isinstance(open_caller(n_ctx=16).answer(texts("a" * 15)), UnaryResult)


def test_token_beyond_the_vocabulary_is_refused(open_caller: OpenCaller) -> None:
    error = open_caller().error(Embed((TokensPrompt((1,)), TokensPrompt((262,)))))

    assert (error.error, error.param) == ("InvalidRequest", "input.1")


# --- ranks ---


def test_each_document_gets_its_score(open_caller: OpenCaller) -> None:
    """The fake's score is the number of tokens, three of them control tokens."""
    assert open_caller("rank").answer(Rank("ab", ("", "x", "xyz"))) == UnaryResult(
        1, Ranked((5.0, 6.0, 8.0), 19)
    )


def test_model_that_does_not_rank_says_so(open_caller: OpenCaller) -> None:
    error = open_caller().error(Rank("a", ("b",)))

    assert error.error == "UnsupportedFeature"
    assert "cannot rank" in error.message


def test_ranking_model_makes_no_embeddings(open_caller: OpenCaller) -> None:
    error = open_caller("rank").error(texts("a"))

    assert error.error == "UnsupportedFeature"
    assert "ranks documents" in error.message


def test_document_that_is_too_long_is_refused(open_caller: OpenCaller) -> None:
    error = open_caller("rank", n_ctx=16).error(Rank("a", ("b", "b" * 20), first=3))

    assert (error.error, error.param) == ("ContextLengthExceeded", "documents")
    assert "24 tokens > 16 maximum in documents.4" in error.message


def test_score_that_is_no_number_is_an_error(open_caller: OpenCaller) -> None:
    worker = open_caller("rank", "embed@1=nan")

    assert worker.error(Rank("a", ("b",))).error == "GenerationFailed"


# --- order, aborts and failures ---


def test_calls_end_in_their_order(open_caller: OpenCaller) -> None:
    worker = open_caller()
    for request_id in range(1, 9):
        worker.calls.start(request_id, texts("a", "b"))
    worker.wait(8)

    assert list(worker.frames) == [*range(1, 9)]


def test_small_call_does_not_wait_for_a_large_one(open_caller: OpenCaller) -> None:
    worker = open_caller("embed@1=wait")
    worker.calls.start(1, texts(*"abcdefghijklmnop"))
    assert worker.backend.waits.wait(DEADLINE_S)
    worker.calls.start(2, texts("a"))
    worker.backend.go_on.set()
    worker.wait(1)

    assert list(worker.frames) == [2, 1]


def test_cancelled_call_still_has_its_end(open_caller: OpenCaller) -> None:
    worker = open_caller("embed@1=wait")
    worker.calls.start(1, texts(*"abcdefgh"))
    worker.calls.start(2, texts("a"))
    worker.calls.cancel(2)
    worker.calls.cancel(1)
    worker.backend.go_on.set()

    assert isinstance(worker.wait(1), Failed)
    assert isinstance(worker.wait(2), Failed)


def test_nothing_is_computed_for_a_call_that_was_cancelled(open_caller: OpenCaller) -> None:
    worker = open_caller("embed@1=wait")
    worker.calls.start(1, texts(*"abcdefgh"))
    assert worker.backend.waits.wait(DEADLINE_S)
    worker.calls.cancel(1)
    worker.backend.go_on.set()
    worker.wait(1)

    assert worker.backend.embedder is not None
    assert worker.backend.embedder.batches == [4]


def test_cancelling_what_was_never_called_does_nothing(open_caller: OpenCaller) -> None:
    worker = open_caller()
    worker.calls.cancel(1)

    assert isinstance(worker.answer(texts("a")), UnaryResult)


@pytest.mark.parametrize(
    ("fault", "error"),
    [("memory", "InsufficientMemory"), ("decode", "GenerationFailed"), ("defect", "GenerationFailed")],
)
def test_failure_is_one_calls_own(open_caller: OpenCaller, fault: str, error: str) -> None:
    worker = open_caller(f"embed@1={fault}")

    assert worker.error(texts("a")).error == error
    assert isinstance(worker.answer(texts("a"), 2), UnaryResult)


def test_context_is_made_when_it_is_first_needed_and_once(open_caller: OpenCaller) -> None:
    worker = open_caller()
    assert worker.backend.embedder is None
    worker.answer(texts("a"))
    first = worker.backend.embedder
    worker.answer(texts("a"), 2)

    assert first is not None
    assert worker.backend.embedder is first


def test_thread_ends_when_nothing_comes_and_the_next_call_has_another() -> None:
    backend, embedders = fake_backend(), set()
    caller = Caller(backend, rest_s=0)
    for request_id in range(20):
        assert isinstance(caller.answer(texts("a"), request_id), UnaryResult)
        thread = caller.calls._thread
        if thread is not None:
            thread.join(DEADLINE_S)
        embedders.add(backend.embedder)
        assert caller.calls._thread is None
    assert caller.calls.close(DEADLINE_S)

    [embedder] = embedders
    assert embedder is not None
    assert embedder.closed


def test_close_frees_the_context() -> None:
    worker = FakeCaller()
    worker.answer(texts("a"))
    assert worker.calls.close(DEADLINE_S)

    assert worker.backend.embedder is not None
    assert worker.backend.embedder.closed


def test_close_while_nothing_was_asked_does_nothing() -> None:
    assert FakeCaller().calls.close(0)


def test_close_that_takes_too_long_says_so() -> None:
    worker = FakeCaller("embed@1=wait")
    worker.calls.start(1, texts("a"))
    assert worker.backend.waits.wait(DEADLINE_S)

    assert not worker.calls.close(0)
    worker.backend.go_on.set()
    assert worker.calls.close(DEADLINE_S)


def test_streams_go_on_while_embeddings_are_made() -> None:
    backend = fake_backend("embed@1=wait")
    worker = InProcessWorker(backend)
    worker.ask(texts("a"), 99)
    assert backend.waits.wait(DEADLINE_S)

    assert worker.answer(ask("5:", max_tokens=8)).text == "6 7 8 9 "
    backend.go_on.set()
    assert worker.close(DEADLINE_S)


def test_model_that_cannot_generate_says_so() -> None:
    error = InProcessWorker(fake_backend("no_text")).answer(ask("5:")).error

    assert error is not None
    assert error.error == "UnsupportedFeature"


# --- packing ---


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60), st.integers(1, 8))
def test_portions_hold_everything_in_order_within_the_bounds(
    sizes: list[int], budget: int, most: int
) -> None:
    parts = [sizes[portion] for portion in portions(sizes, budget, most)]

    assert [size for part in parts for size in part] == sizes
    assert all(0 < len(part) <= most and (sum(part) <= budget or len(part) == 1) for part in parts)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8), st.integers(1, 8))
def test_packed_vector_is_the_same_direction(vector: list[float], dimensions: int) -> None:
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    if not length:
        with pytest.raises(GenerationFailed):
            pack(array("f", vector), dimensions)
        return

    assert numbers(pack(array("f", vector), dimensions)) == pytest.approx(
        [x / length for x in kept], abs=1e-6
    )


@pytest.mark.parametrize("vector", [[math.nan, 1], [math.inf, 1], [0, 0]])
def test_vector_without_direction_is_an_error(vector: Seq[float]) -> None:
    with pytest.raises(GenerationFailed, match="length"):
        pack(array("f", vector), None)
