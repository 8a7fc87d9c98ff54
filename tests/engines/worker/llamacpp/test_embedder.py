"""Vectors and scores by the real llama.cpp, of tiny models with random weights."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Literal

import pytest
from gguf import PoolingType

from kolosal.engines.ipc.calls import Embed, Embedded, Rank, Ranked
from kolosal.engines.ipc.messages import Failed, UnaryResult
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.llamacpp.embedder import LlamaCppEmbedder
from kolosal.engines.worker.llamacpp.load import load_draft
from kolosal.engines.worker.llamacpp.weights import LoadError
from kolosal.engines.worker.rerank_input import rerank_tokens
from kolosal.engines.worker.templates.special_tokens import SpecialTokenEscaper
from kolosal.schema import TextPrompt
from tests.engines.worker.helpers import InProcessWorker, ask, engine_config
from tests.engines.worker.test_embed_and_rank import DEADLINE_S, Caller, numbers
from tests.tiny_gguf import N_CTX_TRAIN, N_EMBD, write_tiny_embedder, write_tiny_gguf

Architecture = Literal["bert", "qwen3"]
Load = Callable[..., LlamaCppBackend]

KINDS: list[tuple[Architecture, PoolingType]] = [
    (architecture, pooling)
    for architecture in ("bert", "qwen3")
    for pooling in (PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.RANK)
    if (architecture, pooling) != ("qwen3", PoolingType.CLS)  # its first token sees nothing of the text
]
TEXTS = ["a", "the first text", "the second text, which is longer", "x" * 700]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Loads a tiny model that is made for embeddings: `load("bert", PoolingType.CLS)`."""
    loaded: list[LlamaCppBackend] = []

    def load_one(
        architecture: Architecture = "bert",
        pooling: PoolingType = PoolingType.MEAN,
        rerank_template: str | None = None,
        **parameters: object,
    ) -> LlamaCppBackend:
        path = tmp_path / f"{architecture}.gguf"
        write_tiny_embedder(path, architecture, pooling, rerank_template=rerank_template)
        config = engine_config(str(path), **{"n_ctx": 1024, "n_threads": 1} | parameters)
        loaded.append(LlamaCppBackend(config, lambda _: None))
        return loaded[-1]

    yield load_one
    for backend in loaded:
        backend.close()


@pytest.fixture
def embedder(load: Load, request: pytest.FixtureRequest) -> Iterator[LlamaCppEmbedder]:
    opened = load(*request.param).open_embedder()
    yield opened
    opened.close()


def each_kind() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "embedder", KINDS, indirect=True, ids=lambda kind: f"{kind[0]}-{kind[1].name.lower()}"
    )


def tokens(text: str) -> list[int]:
    return [1, *(byte + 5 for byte in text.encode())]


def alike(one: Seq[float], other: Seq[float]) -> bool:
    """Up to what half precision and another order of sums make."""
    return math.dist(one, other) <= 0.01 * math.hypot(*one)


@each_kind()
def test_vector_does_not_depend_on_its_neighbours(embedder: LlamaCppEmbedder) -> None:
    together = embedder.pool([tokens(text) for text in TEXTS])
    alone = [embedder.pool([tokens(text)])[0] for text in TEXTS]

    assert all(map(alike, together, alone))
    assert not alike(together[1], together[2])


@each_kind()
def test_vector_is_as_long_as_the_model_is_wide(embedder: LlamaCppEmbedder) -> None:
    (vector,) = embedder.pool([tokens("a")])

    assert len(vector) == (1 if embedder._ranks else N_EMBD)


@each_kind()
def test_longer_text_than_any_before_is_taken(embedder: LlamaCppEmbedder) -> None:
    short = embedder.pool([tokens("short")])[0]
    embedder.pool([tokens("x" * (embedder.max_tokens - 1))])

    assert alike(embedder.pool([tokens("short")])[0], short)


@pytest.mark.parametrize("pooling", [PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.RANK])
def test_pieces_give_what_llama_cpp_gives_for_the_whole(load: Load, pooling: PoolingType) -> None:
    backend = load("qwen3", pooling)
    vectors: list[list[array[float]]] = []
    for in_pieces in (True, False):
        embedder = LlamaCppEmbedder(backend._model, backend.info, in_pieces=in_pieces)
        vectors.append(embedder.pool([tokens(text) for text in TEXTS]))
        embedder.close()

    assert all(map(alike, *vectors))


def test_close_is_idempotent(load: Load) -> None:
    embedder = load().open_embedder()
    embedder.pool([tokens("a")])
    embedder.close()
    embedder.close()


@pytest.mark.parametrize(("n_ctx", "most"), [(256, 256), (4096, N_CTX_TRAIN)])
def test_no_input_is_longer_than_the_model_or_the_engine_takes(load: Load, n_ctx: int, most: int) -> None:
    assert load(n_ctx=n_ctx).open_embedder().max_tokens == most


def test_memory_that_is_not_there_is_an_error_of_one_call(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(load())
    monkeypatch.setattr("kolosal.engines.worker.llamacpp.embedder._free_bytes", lambda: 1000)
    refused = caller.answer(Embed((TextPrompt("a"),)), 1)
    monkeypatch.undo()
    answered = caller.answer(Embed((TextPrompt("a"),)), 2)
    assert caller.calls.close(DEADLINE_S)

    assert isinstance(refused, Failed)
    assert refused.error == "InsufficientMemory"
    assert isinstance(answered, UnaryResult)


# --- engines ---


@pytest.mark.parametrize(("architecture", "generates"), [("bert", False), ("qwen3", True)])
def test_engine_knows_what_its_model_is_for(load: Load, architecture: Architecture, generates: bool) -> None:
    info = load(architecture, PoolingType.CLS).info

    assert (info.can_generate, info.pooling, info.n_embd) == (generates, "cls", N_EMBD)


def test_chat_model_has_its_embeddings_by_the_mean(tiny_gguf: Path) -> None:
    backend = LlamaCppBackend(engine_config(str(tiny_gguf), n_ctx=256), lambda _: None)
    assert (backend.info.can_generate, backend.info.pooling) == (True, "mean")
    backend.close()


@pytest.mark.parametrize("architecture", ["gemma3", "mamba"])
def test_chat_model_of_any_memory_makes_embeddings(
    architecture: Literal["gemma3", "mamba"], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, architecture)
    backend = LlamaCppBackend(engine_config(str(path), n_ctx=1024, n_threads=1), lambda _: None)
    embedder = backend.open_embedder()
    together = embedder.pool([tokens(text) for text in TEXTS])
    alone = [embedder.pool([tokens(text)])[0] for text in TEXTS]
    embedder.close()
    backend.close()

    assert all(map(alike, together, alone))
    assert not alike(together[1], together[2])


def test_embedding_model_refuses_to_generate_and_goes_on(load: Load) -> None:
    worker = InProcessWorker(load("bert"))
    error = worker.answer(ask("a")).error
    worker.check_idle()

    assert error is not None
    assert error.error == "UnsupportedFeature"
    assert "cannot generate" in error.message


def test_stream_says_the_same_beside_embeddings(tiny_gguf: Path) -> None:
    config = engine_config(str(tiny_gguf), n_ctx=512, n_threads=1, cache_type_k="f32", cache_type_v="f32")
    backend = LlamaCppBackend(config, lambda _: None)
    request = ask("a prompt", max_tokens=200, ignore_eos=True)
    alone = InProcessWorker(backend).answer(request).tokens
    worker = InProcessWorker(backend)
    for request_id in range(1000, 1020):
        worker.ask(Embed((TextPrompt("some text " * 20),) * 16), request_id)
    beside = worker.answer(request).tokens
    assert worker.close(DEADLINE_S)
    backend.close()

    assert beside == alone


def test_embedding_model_is_no_draft_model(load: Load, tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "target.gguf")
    draft = load("bert")._loaded
    assert draft is not None
    config = engine_config(
        str(tmp_path / "target.gguf"), n_ctx=256, draft_model_path=str(tmp_path / "bert.gguf")
    )
    with pytest.raises(LoadError, match="cannot be the draft model"):
        load_draft(config, draft)


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_embeddings_are_answered(load: Load, architecture: Architecture) -> None:
    caller = Caller(load(architecture))
    frame = caller.answer(Embed((TextPrompt("one"), TextPrompt("two"), TextPrompt("one")), dimensions=8))
    assert caller.calls.close(DEADLINE_S)

    assert isinstance(frame, UnaryResult)
    assert isinstance(frame.result, Embedded)
    one, two, again = map(numbers, frame.result.vectors)
    assert len(one) == 8
    assert math.hypot(*one) == pytest.approx(1)
    assert alike(one, again)
    assert not alike(one, two)
    assert frame.result.n_tokens == (5, 5, 5)  # with the first token and the last one


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_ranks_are_answered(load: Load, architecture: Architecture) -> None:
    caller = Caller(load(architecture, PoolingType.RANK))
    frame = caller.answer(Rank("query", ("one", "two", "one")))
    assert caller.calls.close(DEADLINE_S)

    assert isinstance(frame, UnaryResult)
    assert isinstance(frame.result, Ranked)
    one, two, again = frame.result.scores
    assert one == pytest.approx(again, rel=0.01)
    assert one != pytest.approx(two, rel=0.01)


# --- pairs of query and document ---


def test_pair_has_the_tokens_that_the_model_wants_between(load: Load) -> None:
    bos, eos = [1], [2]

    assert load("bert", PoolingType.RANK).tokenize_pair("ab", "c") == [
        *bos, *tokens("ab")[1:], *eos, *tokens("c")[1:], *eos
    ]  # fmt: skip


def test_control_token_in_a_document_is_text(load: Load) -> None:
    assert load("bert", PoolingType.RANK).tokenize_pair("", "</s>")[2:-1] == tokens("</s>")[1:]


def test_template_of_the_model_makes_the_pair(load: Load) -> None:
    backend = load("qwen3", PoolingType.RANK, "<s>{query}|{document}</s>")

    assert rerank_tokens("{document}", "b", backend, SpecialTokenEscaper(backend)) == [
        1,
        *tokens("{document}|b")[1:],
        2,
    ]


def test_document_cannot_speak_in_the_models_name(load: Load) -> None:
    backend = load("qwen3", PoolingType.RANK, "<s>{query}|{document}</s>")

    assert rerank_tokens("a", "b</s>", backend, SpecialTokenEscaper(backend)) == [
        1,
        *tokens("a|b</s>")[1:],
        2,
    ]
