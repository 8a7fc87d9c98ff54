"""The official OpenAI client against the running daemon and a real model."""

from __future__ import annotations

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.helpers import ENGINE

pytestmark = pytest.mark.model

CAPITAL: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name the capital city of France."}]
NUMBERS = "1, 2, 3, 4, 5, 6, 7,"


def test_a_chat_is_answered(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=ENGINE, messages=CAPITAL, temperature=0)
    [choice] = answer.choices
    assert choice.message.content == "The capital city of France is Paris."
    assert (choice.message.role, choice.finish_reason, answer.model) == ("assistant", "stop", ENGINE)
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_chat_streams(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(
        model=ENGINE, messages=CAPITAL, temperature=0, stream=True, stream_options={"include_usage": True}
    ) as stream:
        *chunks, last = stream
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == "The capital city of France is Paris."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert (last.choices, last.usage is not None) == ([], True)
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


def test_a_text_is_continued(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model=ENGINE, prompt=NUMBERS, temperature=0, max_tokens=6)
    assert answer.choices[0].text == " 8, 9,"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6


def test_a_continued_text_streams(sdk: openai.OpenAI) -> None:
    with sdk.completions.create(
        model=ENGINE, prompt=NUMBERS, temperature=0, max_tokens=6, stream=True
    ) as stream:
        choices = [choice for chunk in stream for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == " 8, 9,"
    assert choices[-1].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_usage_counts_every_token(sdk: openai.OpenAI, tiny: str, stream: bool) -> None:
    """A token of this model is a byte, and one begins the text."""
    prompt, extra = "Café", {"ignore_eos": True}
    if stream:
        with sdk.completions.create(
            model=tiny, prompt=prompt, max_tokens=17, extra_body=extra, stream=True,
            stream_options={"include_usage": True},
        ) as chunks:  # fmt: skip
            usage = list(chunks)[-1].usage
    else:
        usage = sdk.completions.create(model=tiny, prompt=prompt, max_tokens=17, extra_body=extra).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (6, 17, 23)


def test_a_seed_repeats_the_text(sdk: openai.OpenAI, tiny: str) -> None:
    def text(seed: int) -> str:
        prompt = "Yesterday, on my way home, I saw"
        answer = sdk.completions.create(
            model=tiny,
            prompt=prompt,
            temperature=1,
            seed=seed,
            max_tokens=24,
            extra_body={"ignore_eos": True},
        )
        return answer.choices[0].text

    first = text(7)
    assert text(7) == first
    assert text(8) != first


@pytest.mark.parametrize("stream", [False, True])
def test_several_prompts_give_one_choice_each(sdk: openai.OpenAI, stream: bool) -> None:
    prompts = ["10, 20, 30, 40, 50,", "1, 2, 3, 4, 5,", "A, B, C, D, E, F,"]
    texts = dict.fromkeys(range(3), "")
    if stream:
        with sdk.completions.create(
            model=ENGINE, prompt=prompts, temperature=0, max_tokens=3, stream=True
        ) as chunks:
            for chunk in chunks:
                texts[chunk.choices[0].index] += chunk.choices[0].text
    else:
        answer = sdk.completions.create(model=ENGINE, prompt=prompts, temperature=0, max_tokens=3)
        texts = {choice.index: choice.text for choice in answer.choices}
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 9
    assert [text.partition(",")[0] for text in texts.values()] == [" 60", " 6", " G"]


@pytest.mark.parametrize("stop", [" 10", ["nothing of the kind", "0, 11"]])
def test_a_stop_string_ends_the_text_and_is_no_part_of_it(sdk: openai.OpenAI, stop: str | list[str]) -> None:
    answer = sdk.completions.create(model=ENGINE, prompt=NUMBERS, temperature=0, max_tokens=40, stop=stop)
    assert answer.choices[0].text == (" 8, 9," if stop == " 10" else " 8, 9, 1")
    assert answer.choices[0].finish_reason == "stop"


def test_max_tokens_ends_the_answer(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=ENGINE, messages=CAPITAL, temperature=0, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == "The capital city"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_models_are_listed(sdk: openai.OpenAI, tiny: str) -> None:
    assert [model.id for model in sdk.models.list()] == [ENGINE, tiny]
    model = sdk.models.retrieve(ENGINE)
    assert (model.id, model.object, model.owned_by) == (ENGINE, "model", "kolosal")


def test_an_unknown_model_is_not_found(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nope", messages=CAPITAL)
    assert caught.value.body == {
        "message": "Model 'nope' not found or could not be loaded",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    with pytest.raises(openai.NotFoundError, match="'nope' not found"):
        sdk.models.retrieve("nope")


def test_a_bad_request_names_the_parameter(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature must be at most 2, not 9") as caught:
        sdk.chat.completions.create(model=ENGINE, messages=CAPITAL, temperature=9)
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")


@pytest.mark.fault("M3")
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_told_both_numbers(sdk: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(
        openai.BadRequestError, match=r"prompt is too long: 5001 tokens .* 4096 tokens"
    ) as caught:
        sdk.completions.create(model=ENGINE, prompt="word " * 5000, stream=stream)
    assert caught.value.code == "context_length_exceeded"
