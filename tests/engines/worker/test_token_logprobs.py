"""Log-probabilities are the model's own, one for each token, however the tokens came about."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kolosal.engines.worker.backend import LEAST_LOGPROB
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.llamacpp.logits_row import LogitsRow
from kolosal.schema import (
    FinishReason,
    GenerateRequest,
    Grammar,
    GrammarKind,
    TokenLogprobs,
    TokensPrompt,
    Usage,
)
from tests.engines.worker.helpers import Answer, InProcessWorker, ask, ask_chat, engine_config, fake_backend
from tests.engines.worker.llamacpp.test_backend import PRECISE

TEXT = "the quick brown fox jumps over the lazy dog, "


def reported(prompt: str | tuple[int, ...], **sampling: Any) -> GenerateRequest:
    """A request that wants to know about its prompt, too."""
    request = ask(prompt if isinstance(prompt, str) else "", **{"logprobs": 3, "max_tokens": 5} | sampling)
    if not isinstance(prompt, str):
        request = replace(request, prompt=TokensPrompt(prompt))
    return replace(request, prompt_logprobs=True)


def of_prompt(answer: Answer) -> list[TokenLogprobs]:
    return [entry for entry in answer.logprobs if entry.in_prompt]


def of_answer(answer: Answer) -> list[TokenLogprobs]:
    return [entry for entry in answer.logprobs if not entry.in_prompt]


def values(entries: list[TokenLogprobs]) -> list[float]:
    return [entry.chosen.logprob for entry in entries]


# --- a row ---

ROWS = arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-50, 50, width=32))


@given(ROWS)
def test_probabilities_of_all_tokens_add_up_to_one(logits: np.ndarray) -> None:
    row = LogitsRow(logits, len(logits))

    assert math.fsum(math.exp(row.of(token)) for token in range(len(logits))) == pytest.approx(1, abs=1e-5)


@given(ROWS, st.integers(0, 60))
def test_the_highest_come_in_order_and_equal_ones_by_their_ids(logits: np.ndarray, count: int) -> None:
    ordered = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    row = LogitsRow(logits, count)

    assert [token for token, _ in row.top] == ordered[:count]
    assert [logprob for _, logprob in row.top] == [row.of(token) for token in ordered[:count]]


def test_a_row_does_not_change_with_the_logits_it_was_made_of() -> None:
    logits = np.array([1.0, 2.0], dtype=np.float32)
    row = LogitsRow(logits, 1)
    before = row.of(0)
    logits[:] = -np.inf

    assert row.of(0) == before


def test_what_is_impossible_has_a_number_too() -> None:
    assert LogitsRow(np.array([0.0, -np.inf], dtype=np.float32), 2).top[1] == (1, LEAST_LOGPROB)


# --- the engine, over a fake model that always gives a token one half ---


@pytest.fixture
def worker() -> InProcessWorker:
    return InProcessWorker(fake_backend(n_parallel=4))


@pytest.mark.parametrize("speculation", [False, True])
def test_every_token_of_an_answer_is_reported(speculation: bool) -> None:
    worker = InProcessWorker(fake_backend(), speculation=speculation)
    answer = worker.answer(ask("from 7:", logprobs=2, max_tokens=40))

    assert [entry.chosen.token for entry in answer.logprobs] == answer.tokens
    assert all(entry.chosen == entry.top[0] and len(entry.top) == 2 for entry in answer.logprobs)
    assert "".join(entry.chosen.piece for entry in answer.logprobs) == answer.text


def test_nothing_is_reported_unless_it_is_asked_for(worker: InProcessWorker) -> None:
    assert worker.answer(ask("from 7:", max_tokens=4)).logprobs == []


@pytest.mark.parametrize(
    ("sampling", "shown"),
    [
        ({}, ["a", "b", "c"]),  # the end of the turn is no text
        ({"stop": ("c",)}, ["a", "b"]),
        ({"stop": ("bc",)}, ["a"]),
        ({"stop": ("bx",)}, ["a", "b", "c"]),  # which looked like a stop string for a while
        ({"stop": ("cx",)}, ["a", "b", "c"]),  # also at the end
        ({"max_tokens": 2, "stop": ("bx",)}, ["a", "b"]),
    ],
)
def test_what_is_not_shown_of_a_chat_is_not_reported(
    worker: InProcessWorker, sampling: dict[str, Any], shown: list[str]
) -> None:
    answer = worker.answer(ask_chat("<say>abc</say>", logprobs=0, **sampling))

    assert [entry.chosen.piece for entry in answer.logprobs] == shown
    assert answer.text == "".join(shown)


def test_the_end_token_of_a_text_is_reported_as_it_is_written(worker: InProcessWorker) -> None:
    end = worker.answer(ask("<say>a</say>", logprobs=0)).logprobs[-1].chosen

    assert (end.control, end.data, end.piece) == (True, b"", "<end>")


def test_forced_tokens_of_a_grammar_are_reported() -> None:
    worker = InProcessWorker(fake_backend())
    grammar = Grammar(GrammarKind.REGEX, "yes, certainly")
    answer = worker.answer(replace(ask("x", logprobs=0), grammar=grammar))

    assert answer.text == "yes, certainly"
    assert [entry.chosen.token for entry in answer.logprobs] == answer.tokens


@pytest.mark.parametrize("length", [1, 2, 32, 33, 63, 64, 65, 66, 200])
def test_every_token_of_the_prompt_is_reported_once(worker: InProcessWorker, length: int) -> None:
    prompt = tuple((TEXT * 9).encode()[:length])
    answer = worker.answer(reported(prompt))

    assert tuple(entry.chosen.token for entry in of_prompt(answer)) == prompt
    assert values(of_prompt(answer))[0] == 0
    assert of_prompt(answer)[0].top == ()
    assert all(len(entry.top) == 3 for entry in of_prompt(answer)[1:])
    assert len(of_answer(answer)) == len(answer.tokens) == 5


@pytest.mark.parametrize("length", [1, 65])
def test_a_prompt_can_be_reported_without_an_answer(worker: InProcessWorker, length: int) -> None:
    answer = worker.answer(reported(tuple(b"x" * length), max_tokens=0))

    assert (len(answer.logprobs), answer.tokens, answer.text) == (length, [], "")
    assert (answer.finish_reason, answer.usage) == (FinishReason.LENGTH, Usage(length, 0))
    worker.check_idle()


def test_prompts_are_reported_whole_while_others_are_answered(worker: InProcessWorker) -> None:
    prompts = [tuple((TEXT * 5).encode()[shift : shift + 150]) for shift in range(3)]
    other = worker.submit(ask("from 7:", max_tokens=80))
    asked = [worker.submit(reported(prompt)) for prompt in prompts]
    worker.run()

    for request_id, prompt in zip(asked, prompts, strict=True):
        assert tuple(entry.chosen.token for entry in of_prompt(worker.answers[request_id])) == prompt
    assert worker.answers[other].text.startswith("8 9 10 ")


def test_prompts_are_reported_once_though_they_are_preempted_and_computed_again() -> None:
    worker = InProcessWorker(fake_backend(n_parallel=4, n_ctx=200, kv_pool_tokens=300))
    prompts = [tuple((TEXT * 5).encode()[shift : shift + 110]) for shift in range(4)]
    ids = [worker.submit(reported(prompt, max_tokens=60)) for prompt in prompts]
    worker.run()

    for request_id, prompt in zip(ids, prompts, strict=True):
        answer = worker.answers[request_id]
        assert tuple(entry.chosen.token for entry in of_prompt(answer)) == prompt
        assert [entry.chosen.token for entry in of_answer(answer)] == answer.tokens


def test_reported_prompts_take_no_cells_and_leave_theirs(worker: InProcessWorker) -> None:
    prompt = TEXT * 4
    usages = [worker.answer(request).usage for request in (reported(prompt), reported(prompt), ask(prompt))]

    assert [usage is not None and usage.cached_tokens > 0 for usage in usages] == [False, False, True]


def test_the_stop_string_that_was_met_is_told(worker: InProcessWorker) -> None:
    assert worker.answer(ask("from 7:", stop=("nothing", "10"))).stop == "10"
    assert worker.answer(ask("from 7:", max_tokens=3)).stop is None


# --- llama.cpp ---


@pytest.fixture(scope="module")
def precise(tiny_gguf: Path) -> Iterator[LlamaCppBackend]:
    backend = LlamaCppBackend(engine_config(str(tiny_gguf), **PRECISE), lambda _: None)
    yield backend
    backend.close()


def test_what_was_generated_is_as_probable_as_when_it_is_the_prompt(precise: LlamaCppBackend) -> None:
    worker = InProcessWorker(precise)
    text = ask(TEXT, max_tokens=100, logprobs=3, ignore_eos=True)
    first = worker.answer(text)
    prompt = precise.tokenize(TEXT, add_special=True, parse_special=True)
    again = worker.answer(reported((*prompt, *first.tokens), max_tokens=0))

    assert values(of_prompt(again))[len(prompt) :] == pytest.approx(values(first.logprobs), abs=1e-4)


def test_the_greedy_choice_is_the_most_probable(precise: LlamaCppBackend) -> None:
    answer = InProcessWorker(precise).answer(ask(TEXT, max_tokens=30, logprobs=5))

    assert all(entry.chosen == entry.top[0] for entry in answer.logprobs)
    assert all(sum(math.exp(chance.logprob) for chance in entry.top) <= 1 for entry in answer.logprobs)


def test_cached_cells_change_no_logprob(precise: LlamaCppBackend) -> None:
    worker = InProcessWorker(precise)
    request = ask(TEXT * 3, max_tokens=10, logprobs=0, ignore_eos=True)
    first, second = worker.answer(request), worker.answer(request)

    assert second.usage is not None
    assert second.usage.cached_tokens > 0
    assert values(second.logprobs) == pytest.approx(values(first.logprobs), abs=1e-4)


@pytest.mark.filterwarnings("ignore:llama_token_get_attr:DeprecationWarning")  # llguidance's
def test_logprobs_are_those_before_bias_temperature_and_grammar(precise: LlamaCppBackend) -> None:
    worker = InProcessWorker(precise)
    request = ask(TEXT, max_tokens=1, logprobs=3)
    plain = worker.answer(request).logprobs[0]
    changed = replace(
        ask(TEXT, max_tokens=1, logprobs=3, temperature=2.0, logit_bias=((70, 100.0),), seed=1),
        grammar=Grammar(GrammarKind.REGEX, "[A-Z]+"),
    )
    forced = worker.answer(changed).logprobs[0]

    assert [chance.token for chance in forced.top] == [chance.token for chance in plain.top]
    assert [chance.logprob for chance in forced.top] == pytest.approx(
        [chance.logprob for chance in plain.top], abs=1e-4
    )
    assert forced.chosen.token != plain.chosen.token
    assert forced.chosen.logprob < plain.chosen.logprob
