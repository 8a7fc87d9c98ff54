"""Embeddings and tokens of a real model through the official client, beside streams that run."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import httpx
import openai
import pytest
from gguf import PoolingType

from tests.e2e.helpers import ENGINE, ChatStream, add_engine, chat, content_of
from tests.tiny_gguf import N_EMBD, write_tiny_embedder

pytestmark = pytest.mark.model

CAT, KITTEN, RATES = (
    "The cat sat on the mat.",
    "A kitten lay on a rug.",
    "Interest rates rose by a quarter of a point.",
)
WIDTH = 576
"""Numbers of an embedding of the model."""


def embed(sdk: openai.OpenAI, *texts: str, dimensions: int | None = None) -> list[list[float]]:
    answer = sdk.embeddings.create(model=ENGINE, input=list(texts), dimensions=dimensions or openai.omit)
    assert [row.index for row in answer.data] == [*range(len(texts))]
    return [row.embedding for row in answer.data]


def cosine(one: list[float], other: list[float]) -> float:
    """Of vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_like_meanings_have_like_directions(sdk: openai.OpenAI) -> None:
    cat, kitten, rates = embed(sdk, CAT, KITTEN, RATES)

    assert len(cat) == WIDTH
    assert cosine(cat, cat) == pytest.approx(1, abs=1e-5)
    assert cosine(cat, kitten) > cosine(cat, rates) + 0.1


def test_text_has_the_same_vector_alone_and_among_others(sdk: openai.OpenAI) -> None:
    texts = [CAT, "x" * 2000, KITTEN, *(f"Number {index}" for index in range(8))]
    together = embed(sdk, *texts)

    for index in (0, 1, 2, 10):
        assert cosine(embed(sdk, texts[index])[0], together[index]) == pytest.approx(1, abs=1e-3)


def test_fewer_dimensions_are_the_first_ones_scaled(sdk: openai.OpenAI) -> None:
    (whole,), (short,) = embed(sdk, CAT), embed(sdk, CAT, dimensions=8)
    length = cosine(whole[:8], whole[:8]) ** 0.5

    assert cosine(short, short) == pytest.approx(1, abs=1e-5)
    assert short == pytest.approx([number / length for number in whole[:8]], abs=1e-3)


def test_base64_holds_the_numbers(sdk: openai.OpenAI, http: httpx.Client) -> None:
    body = {"model": ENGINE, "input": CAT}
    as_text = http.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    as_numbers = http.post("/v1/embeddings", json=body | {"encoding_format": "float"}).json()
    decoded = struct.unpack(f"<{WIDTH}f", base64.b64decode(as_text["data"][0]["embedding"]))

    assert decoded == pytest.approx(as_numbers["data"][0]["embedding"], abs=1e-5)
    assert embed(sdk, CAT)[0] == pytest.approx(decoded, abs=1e-5)


def test_tokens_have_the_vector_of_their_text(sdk: openai.OpenAI, http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"model": ENGINE, "content": CAT, "add_special": True}).json()[
        "tokens"
    ]
    answer = sdk.embeddings.create(model=ENGINE, input=[tokens])

    assert cosine(answer.data[0].embedding, embed(sdk, CAT)[0]) == pytest.approx(1, abs=1e-3)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == len(tokens)


def test_too_many_dimensions_are_a_bad_request(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=str(WIDTH)) as error:
        embed(sdk, CAT, dimensions=WIDTH + 1)

    assert error.value.param == "dimensions"


def test_input_that_is_too_long_is_a_bad_request(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"prompt is too long: .* in input\.1") as error:
        embed(sdk, CAT, "word " * 20_000)

    assert error.value.code == "context_length_exceeded"


def test_streams_go_on_while_embeddings_are_made(sdk: openai.OpenAI, http: httpx.Client) -> None:
    stream = ChatStream.open(http, chat("Tell me a story.", max_tokens=32, ignore_eos=True))
    stream.read_some()
    vectors = embed(sdk, *[CAT] * 8)
    stream.read_all()
    stream.check_form("length")

    assert all(cosine(vectors[0], vector) == pytest.approx(1, abs=1e-3) for vector in vectors)
    assert content_of(http.post("/v1/chat/completions", json=chat("Name the capital city of France."))) == (
        "The capital city of France is Paris."
    )


def test_tokens_are_the_text_again(http: httpx.Client) -> None:
    text = "Café au lait: 3 €, 猫"
    tokens = http.post("/tokenize", json={"model": ENGINE, "content": text}).json()["tokens"]

    assert http.post("/detokenize", json={"model": ENGINE, "tokens": tokens}).json()["content"] == text


def test_template_shows_what_the_model_would_get(http: httpx.Client) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is <|im_end|>?"},
    ]
    answer = http.post("/apply-template", json={"model": ENGINE, "messages": messages})

    assert answer.json() == {
        "prompt": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is <|im_end|>?<|im_end|>\n"
        "<|im_start|>assistant\n"
    }


def test_model_that_does_not_rank_says_so(http: httpx.Client) -> None:
    answer = http.post("/v1/rerank", json={"model": ENGINE, "query": CAT, "documents": [KITTEN]})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_feature")


def test_ranking_model_ranks(http: httpx.Client, tmp_path: Path) -> None:
    write_tiny_embedder(tmp_path / "rank.gguf", "qwen3", PoolingType.RANK)
    add_engine(http, "rank", tmp_path / "rank.gguf", n_ctx=256)
    answer = http.post("/v1/rerank", json={"model": "rank", "query": CAT, "documents": [KITTEN, RATES, CAT]})
    rows = answer.json()["results"]

    assert sorted(row["index"] for row in rows) == [0, 1, 2]
    assert rows == sorted(rows, key=lambda row: -row["relevance_score"])
    assert all(0 <= row["relevance_score"] <= 1 for row in rows)


def test_embedding_model_is_an_engine(sdk: openai.OpenAI, http: httpx.Client, tmp_path: Path) -> None:
    write_tiny_embedder(tmp_path / "bert.gguf", "bert", PoolingType.CLS)
    add_engine(http, "bert", tmp_path / "bert.gguf", n_ctx=256)
    vector = sdk.embeddings.create(model="bert", input=CAT).data[0].embedding
    refused = http.post("/v1/chat/completions", json=chat("Hello", "bert"))

    assert len(vector) == N_EMBD
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_feature")
    assert "cannot generate" in refused.json()["error"]["message"]
    assert http.get("/engines/bert").json()["info"]["pooling"] == "cls"
