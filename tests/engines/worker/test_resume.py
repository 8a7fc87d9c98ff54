"""A worker goes on with what another began: together they say what one alone would have said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.ipc.messages import FromWorker, StepOutputs
from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    FinishReason,
    GenerateRequest,
    Grammar,
    GrammarKind,
    TextPrompt,
    TokenDelta,
    TokenLogprobs,
    Usage,
)
from tests.engines.worker.helpers import InProcessWorker, RecordingBackend, ask, engine_config, fake_backend
from tests.fake_worker.backend import FakeSampler

MakeBackend = Callable[[], Backend]


def deltas(frames: list[FromWorker]) -> Iterator[TokenDelta]:
    """What one request got, as the daemon sees it."""
    for frame in frames:
        if isinstance(frame, StepOutputs):
            yield from (output.delta for output in frame.outputs)


class Whole:
    """The sum of deltas."""

    def __init__(self, parts: list[TokenDelta]) -> None:
        self.text = "".join(part.text for part in parts)
        self.tokens = [token for part in parts for token in part.tokens]
        self.logprobs = [each for part in parts for each in part.logprobs]
        self.finish_reason = parts[-1].finish_reason
        self.usage = parts[-1].usage
        self.stop = parts[-1].stop

    @property
    def key(self) -> tuple[str, list[int], FinishReason | None, Usage | None, str | None]:
        """Everything but the log-probabilities, whose last digits may differ."""
        return self.text, self.tokens, self.finish_reason, self.usage, self.stop


def alone(make: MakeBackend, request: GenerateRequest) -> list[TokenDelta]:
    """The deltas of a request that nothing happens to."""
    worker = InProcessWorker(make(), speculation=False)
    worker.answer(request)
    return list(deltas(worker.frames))


def resumed(make: MakeBackend, request: GenerateRequest, before: list[TokenDelta]) -> Whole:
    """What a client gets that has had the first deltas from a worker that died, and the rest from another."""
    n_logged = sum(each.in_prompt for part in before for each in part.logprobs)
    worker = InProcessWorker(make(), speculation=False)
    worker.submit(request, generated=[token for part in before for token in part.tokens], n_logged=n_logged)
    worker.run()
    worker.check_idle()
    return Whole([*before, *deltas(worker.frames)])


def check_every_cut(make: MakeBackend, request: GenerateRequest) -> Whole:
    """Wherever a worker dies, the whole is the same."""
    parts = alone(make, request)
    whole = Whole(parts)
    for n_before in range(len(parts)):
        assert resumed(make, request, parts[:n_before]).key == whole.key, n_before
    return whole


def fake() -> Backend:
    return fake_backend(n_ctx=300, n_parallel=2)


def test_counting_goes_on_where_it_was() -> None:
    assert check_every_cut(fake, ask("5:", max_tokens=20)).text == "6 7 8 9 10 11 12 13 "[:20]


def test_end_of_the_window_is_where_it_was() -> None:
    whole = check_every_cut(lambda: fake_backend(n_ctx=40, n_parallel=1), ask("5:"))

    assert (whole.finish_reason, whole.usage) == (FinishReason.LENGTH, Usage(3, 37))


@pytest.mark.parametrize("text", ["a🙂🙂b", "é" * 9, "\u4f60\u597d"])
def test_code_points_are_cut_nowhere(text: str) -> None:
    assert check_every_cut(fake, ask(f"<say>{text}</say>")).text == text


@pytest.mark.parametrize("stop", ["aab", "abab", "never", "xy"])
def test_text_held_back_for_a_stop_string_is_neither_lost_nor_doubled(stop: str) -> None:
    whole = check_every_cut(fake, ask("<say>aaabaababxyneve</say>", stop=(stop, "STOP")))

    assert whole.text == "aaabaababxyneve".partition(stop)[0]


def test_grammar_goes_on_where_it_was() -> None:
    schema = '{"type":"object","properties":{"city":{"enum":["Paris","Pisa"]},"n":{"type":"integer"}},"required":["city","n"],"additionalProperties":false}'
    request = replace(ask("<say>{</say>", max_tokens=80), grammar=Grammar(GrammarKind.JSON_SCHEMA, schema))
    whole = check_every_cut(fake, request)

    assert whole.text.startswith('{"city": "P')


def test_logprobs_are_reported_once() -> None:
    request = replace(ask("5:", max_tokens=6, logprobs=2), prompt_logprobs=True)
    parts = alone(fake, request)
    for n_before in range(len(parts)):
        assert resumed(fake, request, parts[:n_before]).logprobs == Whole(parts).logprobs


def test_prompt_that_was_reported_half_is_reported_to_the_end() -> None:
    request = replace(ask("5" * 200 + ":", max_tokens=3, logprobs=0), prompt_logprobs=True)
    parts = alone(fake, request)
    assert parts[0].tokens == ()
    for n_before in range(len(parts)):
        assert reported(resumed(fake, request, parts[:n_before]).logprobs) == reported(Whole(parts).logprobs)


def reported(logprobs: list[TokenLogprobs]) -> list[tuple[int, bool]]:
    return [(each.chosen.token, each.in_prompt) for each in logprobs]


@given(
    said=st.text(st.sampled_from("ab🙂é"), max_size=12),
    stops=st.lists(st.text(st.sampled_from("ab🙂"), min_size=1, max_size=4), max_size=3),
    n_before=st.integers(0, 60),
)
def test_any_text_goes_on_where_it_was(said: str, stops: list[str], n_before: int) -> None:
    request = ask(f"<say>{said}</say>", stop=tuple(stops), max_tokens=40)
    parts = alone(fake, request)
    before = parts[: min(n_before, len(parts) - 1)]

    assert resumed(fake, request, before).key == Whole(parts).key


def test_sampler_sees_what_was_generated_before() -> None:
    """Penalties count it, and the draws that were made are not made again."""
    seen: list[int] = []
    given_params: list[SamplingParams] = []

    class Watching(RecordingBackend):
        def new_sampler(self, params: SamplingParams, prompt: Seq[int]) -> FakeSampler:
            sampler = super().new_sampler(params, prompt)
            given_params.append(params)
            sampler.accept = seen.append  # type: ignore[method-assign, assignment]
            return sampler

    worker = InProcessWorker(Watching(n_ctx=100), speculation=False)
    worker.submit(ask("5:", max_tokens=6, seed=3), generated=b"6 7")
    worker.run()

    assert seen == [*b"6 7"]
    assert given_params[0].seed == 3
    assert given_params[0].seed_offset > 0


def test_token_that_the_model_does_not_have_is_refused() -> None:
    worker = InProcessWorker(fake())
    request_id = worker.submit(ask("5:"), generated=[9999])

    error = worker.answers[request_id].error
    assert error is not None
    assert "generated must be below" in error.message


@pytest.mark.parametrize("max_tokens", [2, 1])
def test_answer_that_is_as_long_as_it_may_be_already_ends_at_once(max_tokens: int) -> None:
    """As when the next worker has less room."""
    worker = InProcessWorker(fake())
    request_id = worker.submit(ask("<say>abc</say>", stop=("abx",), max_tokens=max_tokens), generated=b"ab")
    answer = worker.answers[request_id]

    assert (answer.text, answer.finish_reason, answer.usage) == ("ab", FinishReason.LENGTH, Usage(15, 2))


def test_many_go_on_beside_each_other() -> None:
    requests = [ask(f"{start}:", max_tokens=30) for start in range(0, 800, 100)]
    wholes = [alone(fake, request) for request in requests]
    worker = InProcessWorker(fake())
    for index, (request, parts) in enumerate(zip(requests, wholes, strict=True)):
        worker.submit(request, index, [token for part in parts[:index] for token in part.tokens])
    worker.run()
    worker.check_idle()

    for index, parts in enumerate(wholes):
        assert Whole(parts[:index] or [TokenDelta("")]).text + worker.answers[index].text == Whole(parts).text


# --- llama.cpp ---


def test_tiny_model_goes_on_where_it_was(tiny_gguf: Path) -> None:
    backend = LlamaCppBackend(
        engine_config(str(tiny_gguf), n_ctx=256, n_parallel=2, n_threads=1), lambda _: None
    )
    try:
        for request in (
            ask("The quick", max_tokens=24, ignore_eos=True),
            ask("Once", max_tokens=24, ignore_eos=True, frequency_penalty=1.0, repeat_penalty=1.3),
        ):
            check_every_cut(lambda: backend, request)
    finally:
        backend.close()


def test_unconstrained_text_prompt_is_what_it_was() -> None:
    """A request that had produced nothing is simply submitted again."""
    request = GenerateRequest(TextPrompt("5:"), SamplingParams(temperature=0.0, max_tokens=4))

    assert resumed(fake, request, []).text == "6 7 "
