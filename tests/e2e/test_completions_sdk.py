"""Completions through the official client: log-probabilities as evaluations read them, choices, bias and gaps."""

from __future__ import annotations

import math

import httpx
import openai
import pytest
from openai.types.completion_choice import Logprobs

from tests.e2e.helpers import ENGINE

pytestmark = pytest.mark.model

CONTEXT, RIGHT, WRONG = "The capital of France is", " Paris", " banana"


def logprobs(sdk: openai.OpenAI, prompt: str | list[int], *, max_tokens: int) -> tuple[str, Logprobs]:
    answer = sdk.completions.create(
        model=ENGINE, prompt=prompt, max_tokens=max_tokens, temperature=0, echo=True, logprobs=1
    )
    [choice] = answer.choices
    assert choice.logprobs is not None
    return choice.text, choice.logprobs


def token_ids(http: httpx.Client, text: str) -> list[int]:
    ids: list[int] = http.post("/tokenize", json={"model": ENGINE, "content": text}).json()["tokens"]
    return ids


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_the_likelihood_of_a_continuation_is_read_off_the_echo(sdk: openai.OpenAI, max_tokens: int) -> None:
    """As lm-eval does: the sum over the continuation's tokens, and whether greedy decoding would have said them."""
    found = {}
    for continuation in (RIGHT, WRONG):
        _, echoed = logprobs(sdk, CONTEXT + continuation, max_tokens=max_tokens)
        assert echoed.token_logprobs is not None
        assert echoed.top_logprobs is not None
        at = 5
        values = echoed.token_logprobs[at : len(echoed.token_logprobs) - max_tokens]
        tops = echoed.top_logprobs[at : len(echoed.token_logprobs) - max_tokens]
        greedy = all(value == max(top.values()) for value, top in zip(values, tops, strict=True))
        found[continuation] = (sum(values), greedy)
    assert found[RIGHT][1]
    assert not found[WRONG][1]
    assert found[RIGHT][0] > found[WRONG][0] + 5


def test_tokens_are_as_likely_as_the_text_they_make(sdk: openai.OpenAI, http: httpx.Client) -> None:
    text, of_text = logprobs(sdk, CONTEXT + RIGHT, max_tokens=0)
    again, of_tokens = logprobs(sdk, token_ids(http, CONTEXT + RIGHT), max_tokens=0)
    assert text == again == CONTEXT + RIGHT
    assert of_text.tokens == of_tokens.tokens
    assert of_text.token_logprobs is not None
    assert of_tokens.token_logprobs is not None
    assert of_text.token_logprobs[0] is None
    assert of_tokens.token_logprobs[1:] == pytest.approx(of_text.token_logprobs[1:], abs=0.05)


def test_a_long_prompt_is_reported_whole_while_others_stream(sdk: openai.OpenAI) -> None:
    prompt = "one two three four five six seven. " * 40
    with sdk.completions.create(model=ENGINE, prompt="1, 2, 3,", max_tokens=60, stream=True) as other:
        text, echoed = logprobs(sdk, prompt, max_tokens=1)
        assert "".join(chunk.choices[0].text for chunk in other if chunk.choices)
    assert text.startswith(prompt)
    assert echoed.token_logprobs is not None
    assert echoed.text_offset is not None
    assert echoed.tokens is not None
    assert all(value <= 0 for value in echoed.token_logprobs[1:])
    starts = zip(echoed.text_offset, echoed.tokens, strict=True)
    assert all(text.startswith(token, offset) for offset, token in starts)


def test_offsets_are_right_in_text_of_many_bytes(sdk: openai.OpenAI) -> None:
    prompt = "Zürich 🙂 漢字 👩‍👩‍👧 ok"
    text, echoed = logprobs(sdk, prompt, max_tokens=0)
    assert text == prompt
    assert echoed.tokens is not None
    assert echoed.text_offset is not None
    assert any(token.startswith("bytes:") for token in echoed.tokens)
    whole = [
        pair
        for pair in zip(echoed.text_offset, echoed.tokens, strict=True)
        if not pair[1].startswith("bytes:")
    ]
    assert all(text.startswith(token, offset) for offset, token in whole)
    assert echoed.text_offset == sorted(echoed.text_offset)


def test_choices_differ_and_share_what_their_prompt_costs(sdk: openai.OpenAI) -> None:
    prompt = "Once upon a time, in a land far away, " * 8
    answer = sdk.completions.create(model=ENGINE, prompt=prompt, n=3, seed=5, max_tokens=12, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.text for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 36
    alone = sdk.completions.create(model=ENGINE, prompt=prompt, max_tokens=1)
    assert alone.usage is not None
    assert answer.usage.prompt_tokens == alone.usage.prompt_tokens


def test_the_best_of_several_is_the_most_probable(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(
        model=ENGINE, prompt=CONTEXT, n=2, best_of=4, max_tokens=6, logprobs=0, temperature=1.5, seed=3
    )
    means = []
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        means.append(math.fsum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs))
    assert len(means) == 2
    assert means[0] >= means[1]


def test_a_bias_forces_a_token(sdk: openai.OpenAI, http: httpx.Client) -> None:
    [token] = token_ids(http, " banana")[:1]
    answer = sdk.completions.create(
        model=ENGINE, prompt=CONTEXT, max_tokens=3, temperature=0, logit_bias={str(token): 100}
    )
    text = answer.choices[0].text
    assert text
    assert text == text[: len(text) // 3] * 3


def test_a_gap_is_refused_by_a_model_that_cannot_fill_it(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot fill in the middle") as caught:
        sdk.completions.create(model=ENGINE, prompt="def add(a, b):\n", suffix="\n")
    assert (caught.value.code, caught.value.param) == ("unsupported_feature", "suffix")


@pytest.mark.parametrize("prompt", [[10**9], "x"])
def test_tokens_the_model_does_not_have_are_refused(sdk: openai.OpenAI, prompt: str | list[int]) -> None:
    bias = {"999999999": 1} if prompt == "x" else {}
    with pytest.raises(openai.BadRequestError, match="vocabulary") as caught:
        sdk.completions.create(model=ENGINE, prompt=prompt, logit_bias=bias)
    assert caught.value.param == ("logit_bias" if prompt == "x" else "prompt")
