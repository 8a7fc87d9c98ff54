from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace

import pytest

from kolosal.engines.ipc.messages import FromWorker, Ping, Pong, SequenceOutput, StepOutputs
from kolosal.engines.worker.backend import KVCacheFull
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.schedule.kv_cache import IntegrityError
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.schema import FinishReason, GenerateRequest, Usage
from tests.engines.worker.helpers import (
    InProcessWorker,
    RecordingBackend,
    ask,
    ask_chat,
    counting,
    engine_config,
    fake_backend,
)
from tests.fake_worker.backend import FakeBackend, FakeSampler

STEPS = range(1, 61)
"""Where each decode fault is tried: from the first prompt to past the last token of the fault tests."""


@pytest.fixture
def worker() -> InProcessWorker:
    return InProcessWorker(fake_backend(n_ctx=200, n_parallel=4))


def outputs(frames: list[FromWorker]) -> Iterator[SequenceOutput]:
    for frame in frames:
        if isinstance(frame, StepOutputs):
            yield from frame.outputs


# --- signs of life ---


def test_ping_is_answered_before_the_next_step(worker: InProcessWorker) -> None:
    worker.submit(ask("5:", max_tokens=3))
    worker.loop.ping(Ping(7))
    worker.step()

    assert worker.frames[0] == Pong(7)


def test_idle_loop_answers_a_ping(worker: InProcessWorker) -> None:
    worker.loop.ping(Ping(7))
    worker.loop.step()

    assert worker.frames == [Pong(7)]


# --- one request ---


def test_prompt_is_answered(worker: InProcessWorker) -> None:
    assert worker.answer(ask("5:", max_tokens=8)).text == "6 7 8 9 "


def test_the_first_tokens_say_how_long_the_prompt_is(worker: InProcessWorker) -> None:
    worker.answer(ask("5:", max_tokens=8))

    counts = [output.delta.usage for output in outputs(worker.frames)]
    assert counts[0] is not None
    assert counts[-1] is not None
    assert (counts[0].prompt_tokens, counts[0].completion_tokens) == (counts[-1].prompt_tokens, 1)
    assert counts[1:-1] == [None] * (len(counts) - 2)


def test_end_token_stops(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("<say>Bye</say>"))

    assert (answer.text, answer.finish_reason) == ("Bye", FinishReason.STOP)


def test_end_token_is_counted_but_not_shown(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("<say>Bye</say>"))

    assert answer.usage == Usage(prompt_tokens=1 + len("<say>Bye</say>"), completion_tokens=4)


def test_ignored_end_token_does_not_stop(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("<say>Bye</say>", ignore_eos=True, max_tokens=6))

    assert (len(answer.tokens), answer.finish_reason) == (6, FinishReason.LENGTH)


def test_most_tokens_end_with_length(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("5:", max_tokens=3))

    assert (answer.text, answer.finish_reason) == ("6 7", FinishReason.LENGTH)


@pytest.mark.parametrize("max_tokens", [0, 1, 7])
def test_usage_counts_what_was_generated(worker: InProcessWorker, max_tokens: int) -> None:
    answer = worker.answer(ask("5:", max_tokens=max_tokens))

    assert answer.usage == Usage(prompt_tokens=3, completion_tokens=max_tokens)


def test_deltas_carry_every_token(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("5:", max_tokens=7))

    assert bytes(answer.tokens) == answer.text.encode()


def test_end_of_the_window_ends_with_length(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("5:"))

    assert (answer.finish_reason, answer.usage) == (FinishReason.LENGTH, Usage(3, 200 - 3))


def test_longest_prompt_that_fits_gets_one_token(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("x" * 198))

    assert answer.usage == Usage(199, 1)


def test_prompt_of_the_whole_window_is_refused_with_both_numbers(worker: InProcessWorker) -> None:
    error = worker.answer(ask("x" * 199)).error

    assert error is not None
    assert error.error == "ContextLengthExceeded"
    assert error.message.startswith("prompt is too long: 200 tokens > 200 maximum")
    assert "maximum context length is 200 tokens" in error.message
    assert (error.n_prompt_tokens, error.n_ctx) == (200, 200)


def test_enormous_prompt_is_refused_before_it_is_tokenised(worker: InProcessWorker) -> None:
    error = worker.answer(ask("x" * (200 * 1024 + 1))).error

    assert error is not None
    assert "characters" in error.message


def test_template_that_makes_too_much_is_refused_before_it_is_tokenised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = InProcessWorker(fake_backend(), chat_template="{{ 'x' * 5000000 }}")
    monkeypatch.setattr(worker.backend, "tokenize", lambda *_, **__: pytest.fail("tokenised"))
    error = worker.answer(ask_chat("Hi")).error

    assert error is not None
    assert error.error == "ContextLengthExceeded"
    assert error.message.startswith("prompt is too long: 5000000 characters, at least 19532 tokens > ")


def test_defect_costs_one_request_and_tells_no_prompt(
    worker: InProcessWorker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(text: str, **_: object) -> list[int]:
        raise ValueError(f"cannot read {text}")

    with monkeypatch.context() as patch:
        patch.setattr(worker.backend, "tokenize", broken)
        error = worker.answer(ask("my secret")).error

    assert error is not None
    assert (error.error, "ValueError" in error.message) == ("GenerationFailed", True)
    log = capsys.readouterr().err
    assert "in broken" in log
    assert "secret" not in log + error.message
    assert worker.answer(ask("<say>Hello</say>")).text == "Hello"


def test_prompt_without_tokens_is_refused() -> None:
    class NoSpecialTokens(FakeBackend):
        def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
            return super().tokenize(text, add_special=False, parse_special=parse_special)

    worker = InProcessWorker(NoSpecialTokens(engine_config(), lambda _: None))
    error = worker.answer(ask("")).error

    assert error is not None
    assert (error.error, error.param) == ("InvalidRequest", "prompt")


def test_stop_string_ends_the_text_before_it(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("<say>one, two, three</say>", stop=(", t", "three")))

    assert (answer.text, answer.finish_reason) == ("one", FinishReason.STOP)


def test_text_held_for_a_stop_string_is_shown_at_the_length_limit(worker: InProcessWorker) -> None:
    answer = worker.answer(ask("<say>abcdef</say>", stop=("cdX",), max_tokens=4))

    assert (answer.text, answer.finish_reason) == ("abcd", FinishReason.LENGTH)


def test_text_held_for_a_stop_string_is_shown_at_the_end_token(worker: InProcessWorker) -> None:
    assert worker.answer(ask("<say>abcd</say>", stop=("cdX",))).text == "abcd"


def test_code_points_are_never_split_across_deltas() -> None:
    worker = InProcessWorker(fake_backend(), speculation=False)
    worker.answer(ask("<say>é🙂漢</say>"))

    assert [o.delta.text for o in outputs(worker.frames) if o.delta.text] == ["é", "🙂", "漢"]


def test_chat_is_answered(worker: InProcessWorker) -> None:
    assert worker.answer(ask_chat("<say>Hello</say>")).text == "Hello"


def test_template_that_refuses_names_the_messages() -> None:
    worker = InProcessWorker(fake_backend(), chat_template="{{ raise_exception('no') }}")
    error = worker.answer(ask_chat("Hi")).error

    assert error is not None
    assert (error.error, error.param) == ("InvalidRequest", "messages")


def test_sampler_that_cannot_be_made_fails_the_request(worker: InProcessWorker) -> None:
    error = worker.answer(ask("5:", seed=0xBAD)).error

    assert error is not None
    assert error.error == "GenerationFailed"


# --- many requests ---


def test_output_of_a_step_is_one_frame(worker: InProcessWorker) -> None:
    for _ in range(3):
        worker.submit(ask("5:", max_tokens=2))
    worker.run()

    assert [len(frame.outputs) for frame in worker.frames if isinstance(frame, StepOutputs)] == [3, 3]


def test_aborted_request_gets_nothing_more(worker: InProcessWorker) -> None:
    request_id = worker.submit(ask("5:"))
    worker.step()
    worker.abort(request_id)
    worker.submit(ask("<say>x</say>"))
    worker.run()

    assert worker.answers[request_id].finish_reason is FinishReason.ABORT


def test_aborted_request_tells_its_usage(worker: InProcessWorker) -> None:
    request_id = worker.submit(ask("5:"))
    worker.step()
    worker.abort(request_id)
    worker.run()

    assert worker.answers[request_id].usage == Usage(3, 1)


def test_waiting_request_can_be_aborted() -> None:
    worker = InProcessWorker(fake_backend(n_ctx=100, n_parallel=1))
    worker.submit(ask("5:", max_tokens=20))
    waiting = worker.submit(ask("6:", max_tokens=20))
    worker.step()
    worker.abort(waiting)
    worker.run()

    assert worker.answers[waiting].usage == Usage(3, 0)


def test_abort_of_an_unknown_request_is_ignored(worker: InProcessWorker) -> None:
    worker.abort(77)

    assert worker.answer(ask("5:", max_tokens=2)).text == "6 "


def test_second_abort_is_ignored(worker: InProcessWorker) -> None:
    request_id = worker.submit(ask("5:"))
    worker.abort(request_id)
    worker.abort(request_id)
    worker.submit(ask("6:", max_tokens=2))
    worker.run()

    assert worker.answers[request_id].endings == 1


def test_abort_frees_the_cells_before_the_next_step(worker: InProcessWorker) -> None:
    request_id = worker.submit(replace(ask("5:"), use_cache=False))
    worker.step()
    worker.abort(request_id)
    worker.submit(ask("6:", max_tokens=2))
    worker.step()

    assert sum(worker.backend.cells(slot) for slot in range(worker.backend.n_slots)) == 3


def books_equal(worker: InProcessWorker) -> None:
    worker.loop._cache.check_integrity(worker.backend.cells)


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_is_right_while_many_share_a_small_pool(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's order, not a secret
    backend = RecordingBackend(n_ctx=60, n_parallel=6, kv_pool_tokens=90, n_batch=16)
    busy: InProcessWorker = InProcessWorker(backend, after_step=lambda: books_equal(busy))
    expected: dict[int, str] = {}
    aborted: set[int] = set()
    while len(expected) < 150 or busy.busy:
        if len(expected) < 150 and chance.random() < 0.5:
            start, length = chance.randrange(10_000), chance.randrange(1, 30)
            text = "x" * chance.randrange(20) + f"{start}:"
            expected[busy.submit(ask(text, max_tokens=length))] = counting(start, length)
        if expected and chance.random() < 0.05:
            aborted.add(request_id := chance.choice([*expected]))
            busy.abort(request_id)
        if busy.busy:
            busy.step()
    busy.check_idle()

    for request_id, text in expected.items():
        answer = busy.answers[request_id]
        assert answer.endings == 1
        if answer.finish_reason is FinishReason.ABORT:
            assert request_id in aborted
            assert text.startswith(answer.text)
        else:
            assert answer.text == text
    assert set(backend.closes) == {1}


def test_small_pool_makes_the_youngest_pause() -> None:
    """What the test above relies on: sequences are preempted and computed again."""
    backend = RecordingBackend(n_ctx=60, n_parallel=2, kv_pool_tokens=60)
    worker = InProcessWorker(backend)
    for start in (5, 6):
        worker.submit(ask(f"{start}:", max_tokens=50))
    worker.run()

    assert {1} in backend.batches
    assert [answer.text for answer in worker.answers.values()] == [counting(5, 50), counting(6, 50)]


# --- the end of a sequence ---


@pytest.mark.parametrize(
    "request_",
    [ask("5:", max_tokens=3), ask("<say>x</say>"), ask("<say>a stop</say>", stop=("st",)), ask("5:")],
    ids=["length", "end token", "stop string", "window"],
)
def test_sampler_is_closed_once_at_the_end(request_: GenerateRequest) -> None:
    backend = RecordingBackend(n_ctx=50)
    InProcessWorker(backend).answer(request_)

    assert backend.closes == [1]


@pytest.mark.parametrize("steps", [0, 3])
def test_sampler_is_closed_once_after_an_abort(steps: int) -> None:
    backend = RecordingBackend(n_ctx=50, n_parallel=1)
    worker = InProcessWorker(backend)
    worker.submit(ask("5:", max_tokens=10))
    request_id = worker.submit(ask("5:", max_tokens=10))
    for _ in range(steps):
        worker.step()
    worker.abort(request_id)
    worker.abort(request_id)
    worker.run()

    assert backend.closes == [1, 1]


def test_sampler_is_closed_once_after_a_failed_decode() -> None:
    backend = RecordingBackend("decode@3=-1", n_ctx=50)
    worker = InProcessWorker(backend)
    worker.answer(ask("5:", max_tokens=10))

    assert backend.closes == [1]


def test_cells_of_an_ended_sequence_are_free_where_it_may_not_be_kept(worker: InProcessWorker) -> None:
    worker.answer(replace(ask("5:", max_tokens=3), use_cache=False))

    assert worker.backend.cells(0) == 0


def test_cells_of_an_ended_sequence_serve_the_next_that_begins_alike(worker: InProcessWorker) -> None:
    worker.answer(ask("Count on from 5:", max_tokens=4))
    usage = worker.answer(ask("Count on from 5:6 7 and 40:", max_tokens=4)).usage

    assert usage is not None
    assert usage.cached_tokens == 1 + len("Count on from 5:6 7")


# --- decode faults (M4) ---


class FaultRun:
    """Six requests of different lengths with a fault at one step."""

    def __init__(self, *faults: str) -> None:
        self.backend = RecordingBackend(*faults, n_ctx=150, n_parallel=3, kv_pool_tokens=280, n_batch=16)
        self.worker: InProcessWorker = InProcessWorker(
            self.backend, after_step=lambda: books_equal(self.worker)
        )
        for start, length in ((5, 65), (60, 12), (700, 30), (8000, 45), (90000, 55), (11, 40)):
            self.worker.submit(ask("x" * length + f"{start}:", max_tokens=length))
        self.worker.run()

    @property
    def texts(self) -> dict[int, str]:
        return {request_id: answer.text for request_id, answer in self.worker.answers.items()}

    @property
    def failed(self) -> set[int]:
        return {request_id for request_id, answer in self.worker.answers.items() if answer.error}


@pytest.fixture(scope="module")
def undisturbed() -> FaultRun:
    return FaultRun()


@pytest.mark.fault("M4")
def test_full_cache_at_any_step_changes_no_text(undisturbed: FaultRun) -> None:
    """Two sequences run at every one of these steps: one alone has nobody to make room."""
    for step in STEPS:
        run = FaultRun(f"decode@{step}=1")

        assert run.texts == undisturbed.texts, f"at step {step}"


@pytest.mark.fault("M4")
@pytest.mark.parametrize("code", [2, -1, -3])
def test_failed_decode_fails_the_sequences_of_its_batch_only(undisturbed: FaultRun, code: int) -> None:
    for step in STEPS:
        run = FaultRun(f"decode@{step}={code}")
        lost = run.backend.batches[step - 1]
        kept = {request_id: text for request_id, text in undisturbed.texts.items() if request_id not in lost}

        assert run.failed == lost, f"at step {step}"
        assert run.texts | kept == run.texts, f"at step {step}"


@pytest.mark.parametrize("code", [1, 2, -1, -3])
def test_request_after_a_fault_is_answered(code: int) -> None:
    worker = InProcessWorker(fake_backend(f"decode@2={code}"))
    worker.answer(ask("5:", max_tokens=8))

    assert worker.answer(ask("6:", max_tokens=4)).text == "7 8 "


def test_failure_names_the_result_of_the_call() -> None:
    error = InProcessWorker(fake_backend("decode@2=-3")).answer(ask("5:", max_tokens=8)).error

    assert error is not None
    assert (error.error, "-3" in error.message) == ("GenerationFailed", True)


def test_sequence_alone_survives_a_full_cache() -> None:
    answer = InProcessWorker(fake_backend("decode@2=1")).answer(ask("5:", max_tokens=8))

    assert answer.text == "6 7 8 9 "


class SmallerThanItSays(FakeBackend):
    """Holds fewer cells than its info tells."""

    def decode(self, chunks: Seq[Chunk]) -> None:
        if self._used() + sum(len(chunk.tokens) for chunk in chunks) > self.info.kv_pool_tokens // 2:
            raise KVCacheFull("smaller than it says")
        super().decode(chunks)


def test_cache_smaller_than_the_books_still_makes_progress() -> None:
    worker = InProcessWorker(
        SmallerThanItSays(engine_config(n_ctx=100, n_parallel=4, kv_pool_tokens=200), lambda _: None)
    )
    for start in (5, 60, 700):
        worker.submit(ask("x" * 60 + f"{start}:", max_tokens=20))
    worker.run()

    assert [answer.text for answer in worker.answers.values()] == [counting(s, 20) for s in (5, 60, 700)]


# --- the life of the loop ---


def test_idle_loop_checks_the_books() -> None:
    worker = InProcessWorker(fake_backend())
    worker.answer(ask("5:", max_tokens=2))
    worker.backend.decode([Chunk(stray_sequence(), 5, 0, [1, 1, 1], 0)])
    with pytest.raises(IntegrityError):
        worker.check_idle()


def stray_sequence() -> Sequence:
    return Sequence(99, [1, 2, 3], 3, max_length=9, sampler=FakeSampler(), text=Detokenizer())


def test_run_ends_after_stop() -> None:
    loop = EngineLoop(fake_backend(), lambda _: None)
    loop.stop()
    loop.run()


def test_idle_run_wakes_for_a_stop_from_another_thread() -> None:
    loop = EngineLoop(fake_backend(), lambda _: None)
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.stop()
    thread.join(5)

    assert not thread.is_alive()


def test_stop_does_not_wait_for_running_sequences(worker: InProcessWorker) -> None:
    request_id = worker.submit(ask("5:"))
    worker.step()
    worker.loop.stop()
    worker.loop.run()

    assert not worker.answers[request_id].ended


# --- windows of requests ---


@pytest.mark.parametrize(("max_context", "length"), [(None, 50), (20, 20), (50, 50), (500, 50)])
def test_a_request_may_have_a_smaller_window_than_the_engine(max_context: int | None, length: int) -> None:
    whole = InProcessWorker(fake_backend(n_ctx=50)).answer(replace(ask("5:"), max_context=max_context))

    assert whole.finish_reason is FinishReason.LENGTH
    assert whole.usage is not None
    assert whole.usage.total_tokens == length


def test_a_prompt_that_fills_its_own_window_is_refused_with_both_numbers() -> None:
    refused = InProcessWorker(fake_backend(n_ctx=50)).answer(replace(ask("x" * 30), max_context=20))

    assert refused.error is not None
    assert refused.error.error == "ContextLengthExceeded"
    assert all(number in refused.error.message for number in ("3", "20"))


def test_a_generation_that_goes_on_keeps_its_own_window() -> None:
    worker = InProcessWorker(fake_backend(n_ctx=50))
    request = replace(ask("5:"), max_context=20)
    first = worker.answer(request)
    request_id = worker.submit(request, generated=first.tokens[:4])
    worker.run()

    usage = worker.answers[request_id].usage
    assert usage is not None
    assert usage.total_tokens == 20
