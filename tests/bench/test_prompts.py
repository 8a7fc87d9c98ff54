from __future__ import annotations

import pytest

from kolosal.bench import prompts
from kolosal.bench.prompts import generator


@pytest.mark.parametrize("tokens", [30, 60, 1090, 1900])
def test_fresh_text_has_about_the_words_for_its_tokens(tokens: int) -> None:
    words = len(prompts.fresh(generator("1"), tokens).split())
    assert words == pytest.approx((tokens - prompts.NONCE_TOKENS) / prompts.TOKENS_PER_WORD + 3, abs=1)


def test_prose_has_about_the_words_for_its_tokens() -> None:
    assert len(prompts.prose(generator("1"), 190).split()) == round(190 / prompts.PROSE_TOKENS_PER_WORD)


def test_same_seed_same_text_and_another_seed_another_beginning() -> None:
    texts = [prompts.fresh(generator(f"{seed}"), 60) for seed in range(200)]
    assert texts == [prompts.fresh(generator(f"{seed}"), 60) for seed in range(200)]
    assert len({" ".join(text.split()[:3]) for text in texts}) == 200


def test_tasks_of_one_talk_differ() -> None:
    assert len(set(prompts.tasks(generator("1"), 5))) == 5


def test_every_shape_can_be_filled() -> None:
    rng = generator("2")
    for shape in (*prompts._SHAPES, *prompts._QUESTIONS, *prompts._TASKS, *prompts._PROSE):
        assert "{" not in prompts._fill(rng, shape)
