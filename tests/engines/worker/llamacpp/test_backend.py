"""The real llama.cpp, on a tiny model with random weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import pytest

from kolosal.engines.parameters import FlashAttention, SplitMode
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.llamacpp.weights import LoadError
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.scheduler import MAX_DECODE_TOKENS
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.schema import ChatPrompt, GenerateRequest, Message
from tests import tiny_gguf as tiny
from tests.engines.worker.helpers import RENDERER, InProcessWorker, ask, engine_config

PRECISE: dict[str, Any] = {
    "cache_type_k": "f32",
    "cache_type_v": "f32",
    "flash_attn": FlashAttention.OFF,
    "n_ctx": 1024,
    "n_parallel": 4,
    "n_threads": 1,
}
"""What makes a sum independent of its neighbours in the batch, on a machine that others use too."""
BOUNDARIES = [size + beside for size in (MAX_DECODE_TOKENS, 512) for beside in (-1, 0, 1)]
CONTROLS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


class Recorder(LlamaCppBackend):
    """Remembers which requests were computed from their first token, as all are once and preempted ones again."""

    def __init__(self, path: Path, **parameters: Any) -> None:
        self.begun: list[int] = []
        super().__init__(engine_config(str(path), **PRECISE | parameters), lambda _: None)

    def decode(self, chunks: Seq[Chunk]) -> None:
        # all have their first token in common, so its cell may be another's
        self.begun += [chunk.sequence.request_id for chunk in chunks if chunk.start <= 1]
        super().decode(chunks)


Load = Callable[..., Recorder]


@pytest.fixture
def load(tiny_gguf: Path) -> Iterator[Load]:
    """Loads the tiny model: `load(n_ctx=64)`."""
    loaded: list[Recorder] = []

    def load_one(**parameters: Any) -> Recorder:
        loaded.append(Recorder(tiny_gguf, **parameters))
        return loaded[-1]

    yield load_one
    for backend in loaded:
        backend.close()


def prompt(length: int) -> str:
    """A text of so many tokens, one of them for the beginning."""
    chance = random.Random(length)  # noqa: S311 - a test's text, not a secret
    return "".join(chance.choice("abcdefghij ") for _ in range(length - 1))


def request(length: int, max_tokens: int = 20, **sampling: Any) -> GenerateRequest:
    return ask(prompt(length), max_tokens=max_tokens, **{"ignore_eos": True} | sampling)


def tokens_alone(backend: LlamaCppBackend, one: GenerateRequest) -> list[int]:
    return InProcessWorker(backend).answer(one).tokens


def tokens_together(backend: LlamaCppBackend, requests: list[GenerateRequest]) -> list[list[int]]:
    worker = InProcessWorker(backend)
    for one in requests:
        worker.submit(one)
    worker.run()
    worker.check_idle()
    return [answer.tokens for answer in worker.answers.values()]


# --- batching ---


@pytest.mark.parametrize("lengths", [(2, 40, 90, 7), tuple(BOUNDARIES[:4]), tuple(BOUNDARIES[2:])])
def test_answers_in_a_batch_are_those_given_alone(load: Load, lengths: tuple[int, ...]) -> None:
    backend = load()
    requests = [request(length) for length in lengths]

    assert tokens_together(backend, requests) == [tokens_alone(backend, one) for one in requests]


@pytest.mark.parametrize("length", [1, 2, *BOUNDARIES])
def test_answer_does_not_depend_on_the_chunks_of_the_prompt(load: Load, length: int) -> None:
    assert tokens_alone(load(n_batch=7), request(length)) == tokens_alone(load(), request(length))


def test_late_request_gets_the_answer_it_gets_alone(load: Load) -> None:
    backend = load()
    worker = InProcessWorker(backend)
    worker.submit(request(30, max_tokens=40))
    for _ in range(10):
        worker.step()
    late = worker.submit(request(300))
    worker.run()

    assert worker.answers[late].tokens == tokens_alone(backend, request(300))


@pytest.mark.fault("M3")
def test_preempted_request_gets_the_answer_it_gets_alone(load: Load) -> None:
    backend = load(n_ctx=200, kv_pool_tokens=256)
    requests = [request(length, max_tokens=90) for length in (60, 70, 80)]
    together = tokens_together(backend, requests)

    assert len(backend.begun) > len(requests), "nothing was preempted, so this test shows nothing"
    assert together == [tokens_alone(backend, one) for one in requests]


def test_what_an_aborted_request_computed_serves_the_next(load: Load) -> None:
    worker = InProcessWorker(load())
    request_id = worker.submit(request(300))
    worker.step()
    worker.abort(request_id)
    worker.run()
    again = worker.answer(request(300)).usage

    assert again is not None
    assert 0 < again.cached_tokens < 300


@pytest.mark.fault("M3")
def test_books_equal_the_memory_after_every_step(load: Load) -> None:
    backend = load(n_ctx=200, kv_pool_tokens=256)
    worker = InProcessWorker(backend, after_step=lambda: books(worker).check_integrity(backend.cells))
    for length in (60, 70, 80, 5, 130):
        worker.submit(request(length, max_tokens=60))
    worker.run()


def books(worker: InProcessWorker) -> KVCache:
    return worker.loop._cache


# --- sampling ---


def sampled(backend: LlamaCppBackend, **sampling: Any) -> list[int]:
    return tokens_alone(backend, request(10, **{"temperature": 1.0, "seed": 1} | sampling))


def test_same_seed_gives_the_same_text(load: Load) -> None:
    backend = load()

    assert sampled(backend, seed=1) == sampled(backend, seed=1)


def test_other_seed_gives_another_text(load: Load) -> None:
    backend = load()

    assert sampled(backend, seed=1) != sampled(backend, seed=2)


def test_seed_gives_the_same_text_beside_others(load: Load) -> None:
    backend = load()
    one = request(10, temperature=1.0, seed=1)
    others = [request(length, temperature=1.0, seed=5) for length in (20, 200)]

    assert tokens_together(backend, [*others, one])[-1] == tokens_alone(backend, one)


def test_seed_of_the_engine_is_the_default(load: Load) -> None:
    assert sampled(load(seed=1), seed=None) == sampled(load(), seed=1)


@pytest.mark.parametrize(
    "penalty", [{"repeat_penalty": 3.0}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0}]
)
def test_penalty_changes_the_text(load: Load, penalty: dict[str, float]) -> None:
    backend = load()

    assert tokens_alone(backend, request(10, 60, **penalty)) != tokens_alone(backend, request(10, 60))


def test_top_k_of_one_is_greedy(load: Load) -> None:
    backend = load()

    assert sampled(backend, top_k=1) == tokens_alone(backend, request(10))


@pytest.mark.parametrize(
    "extreme", [{"top_k": 1_000_000}, {"temperature": 5.0}, {"top_p": 1e-9}, {"min_p": 1.0}]
)
def test_extreme_parameters_are_survived(load: Load, extreme: dict[str, Any]) -> None:
    assert len(sampled(load(), **extreme)) == 20


# --- text ---


@pytest.mark.parametrize("text", ["", "Hello", "🙂漢字é", "a\0b", "\n\t", "\ufffd", "<|im_end"])
def test_text_survives_its_tokens(load: Load, text: str) -> None:
    backend = load()
    tokens = backend.tokenize(text, add_special=False, parse_special=True)

    assert b"".join(map(backend.token_bytes, tokens)).decode() == text


@pytest.mark.parametrize("text", CONTROLS)
def test_control_token_is_read_where_it_is_asked_for(load: Load, text: str) -> None:
    assert len(load().tokenize(text, add_special=False, parse_special=True)) == 1


@pytest.mark.parametrize("text", CONTROLS)
def test_control_token_adds_no_text(load: Load, text: str) -> None:
    backend = load()
    token = backend.tokenize(text, add_special=False, parse_special=True)[0]

    assert backend.token_bytes(token) == b""


@pytest.mark.parametrize(
    "text",
    [
        *CONTROLS,
        "<unk>",
    ],
)
def test_spelling_of_a_control_token_in_user_text_stays_characters(load: Load, text: str) -> None:
    backend = load()
    tokens = ChatTemplate(backend, "{{ messages[0].content }}", RENDERER).tokenize(
        ChatPrompt((Message("user", f"a{text}b"),))
    )

    assert b"".join(map(backend.token_bytes, tokens)).decode() == f"a{text}b"


def test_begin_of_text_token_is_not_doubled(load: Load) -> None:
    backend = load()
    tokens = ChatTemplate(backend, "{{ bos_token }}x", RENDERER).tokenize(ChatPrompt(()))

    assert tokens == backend.tokenize("x", add_special=True, parse_special=True)


def test_end_token_is_known(load: Load) -> None:
    backend = load()

    assert backend.is_end(backend.tokenize("</s>", add_special=False, parse_special=True)[0])


def test_character_is_no_end_token(load: Load) -> None:
    backend = load()

    assert not backend.is_end(backend.tokenize("a", add_special=False, parse_special=True)[0])


# --- loading ---


def test_info_tells_what_was_got(load: Load) -> None:
    info = load(n_ctx=100, n_parallel=3, n_batch=64, n_ubatch=512).info

    assert (info.n_ctx, info.n_parallel, info.n_batch, info.n_ubatch, info.architecture) == (
        100, 3, 64, 64, "llama",
    )  # fmt: skip


def test_pool_holds_the_windows_of_all(load: Load) -> None:
    assert load(n_ctx=1024, n_parallel=3).info.kv_pool_tokens >= 3 * 1024


def test_progress_ends_at_one(tiny_gguf: Path) -> None:
    seen: list[float] = []
    LlamaCppBackend(engine_config(str(tiny_gguf), n_ctx=64), seen.append).close()

    assert seen[-1] == 1.0


def test_warm_up_leaves_no_cells(load: Load) -> None:
    assert load(warmup=True).cells(0) == 0


def test_warm_up_changes_no_answer(load: Load) -> None:
    assert tokens_alone(load(warmup=True), request(10)) == tokens_alone(load(), request(10))


@pytest.mark.parametrize(
    "parameters",
    [
        {"cache_type_k": "f16", "cache_type_v": "f16", "flash_attn": FlashAttention.OFF},
        {"tensor_split": (3.0, 1.0), "split_mode": SplitMode("layer")},
        {"tensor_split": (1.0,) * 16, "split_mode": SplitMode("row")},
        {"split_mode": SplitMode("none"), "main_gpu_id": 0},
        {"main_gpu_id": -1, "n_gpu_layers": -1},
        {"use_mmap": False},
        {"n_parallel": 256, "n_ctx": 16, "n_batch": 1},
        {"n_threads": 1, "n_threads_batch": 2},
    ],
    ids=" ".join,
)
def test_loading_parameters_are_accepted(load: Load, parameters: dict[str, Any]) -> None:
    assert len(tokens_alone(load(**parameters), request(5, max_tokens=8))) == 8


@pytest.fixture
def wide_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model with heads as wide as a block of a quantised type."""
    monkeypatch.setattr(tiny, "N_HEADS", 2)
    monkeypatch.setattr(tiny, "N_HEADS_KV", 1)
    path = tmp_path / "wide.gguf"
    tiny.write_tiny_gguf(path)
    return path


@pytest.mark.parametrize(("type_v", "flash_attn"), [("q8_0", FlashAttention.ON), ("f16", FlashAttention.OFF)])
def test_quantised_cache_is_accepted(wide_gguf: Path, type_v: str, flash_attn: FlashAttention) -> None:
    backend = Recorder(wide_gguf, cache_type_k="q8_0", cache_type_v=type_v, flash_attn=flash_attn)
    tokens = tokens_alone(backend, request(5, max_tokens=8))
    backend.close()

    assert len(tokens) == 8


def test_quantised_values_without_flash_attention_are_refused(load: Load) -> None:
    with pytest.raises(LoadError, match="requires flash_attn"):
        load(cache_type_v="q8_0", flash_attn=FlashAttention.OFF)


def test_close_is_idempotent(load: Load) -> None:
    backend = load()
    backend.close()
    backend.close()


# --- files that are no models ---


def load_file(path: Path) -> None:
    LlamaCppBackend(engine_config(str(path), n_ctx=64), lambda _: None).close()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read: No such file"):
        load_file(tmp_path / "none.gguf")


def test_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        load_file(tmp_path)


@pytest.mark.parametrize("content", [b"", b"G", b"GGU", b"Once upon a time", b"\x7fELF"])
def test_file_of_another_kind_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.gguf"
    path.write_bytes(content)
    with pytest.raises(LoadError, match="not a GGUF model"):
        load_file(path)


def truncated(tiny_gguf: Path, tmp_path: Path, keep: float) -> Path:
    data = tiny_gguf.read_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    return path


@pytest.mark.parametrize("keep", [4, 8, 16, 24, 25, 100, 1000, 5000, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_file_is_refused(tiny_gguf: Path, tmp_path: Path, keep: float) -> None:
    with pytest.raises(LoadError, match="could not load the file"):
        load_file(truncated(tiny_gguf, tmp_path, keep))


def test_reason_of_a_failed_load_is_llama_cpps(tiny_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError) as failure:
        load_file(truncated(tiny_gguf, tmp_path, 0.5))

    assert "corrupted or incomplete" in str(failure.value)
