from __future__ import annotations

from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.schema import TokenLogprob, TokenLogprobs, Usage
from tests.fake_worker.backend import FakeSampler


def sequence(n_prompt: int) -> Sequence:
    return Sequence(1, [1] * n_prompt, n_prompt, max_length=100, sampler=FakeSampler(), text=Detokenizer())


def running(n_prompt: int, n_computed: int) -> Sequence:
    one = sequence(n_prompt)
    one.slot, one.n_computed = 0, n_computed
    return one


def test_waiting_sequence_has_its_whole_prompt_to_compute() -> None:
    assert sequence(10).n_pending == 10


def test_decoding_sequence_has_one_token_to_compute() -> None:
    one = running(10, 10)
    one.tokens.append(5)

    assert one.n_pending == 1


def test_usage_counts_the_prompt_apart_from_the_answer() -> None:
    one = running(10, 10)
    one.tokens += [5, 6]

    assert one.usage() == Usage(prompt_tokens=10, completion_tokens=2)


def test_usage_tells_what_was_found_in_the_cache() -> None:
    one = running(10, 10)
    one.n_cached = 4

    assert one.usage().cached_tokens == 4


def report(text: str) -> TokenLogprobs:
    return TokenLogprobs(TokenLogprob(7, text.encode().decode("latin-1"), -1.0))


def test_a_token_that_reaches_into_a_stop_string_is_reported_as_far_as_it_is_shown() -> None:
    one = sequence(1)
    one.text, one.reports_shown = Detokenizer(("stop",)), True
    for text in ("aé", " é st", "op it"):
        one.unshown.append((one.text.n_chars, report(text)))
        one.text.push(text.encode())

    assert [entry.chosen.data.decode() for entry in one.take_shown()] == ["aé", " é "]
