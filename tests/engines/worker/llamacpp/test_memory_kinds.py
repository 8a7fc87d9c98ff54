"""Models whose memory cannot be cut: recurrent states, alone and beside attention, and sliding windows that drop cells.

What others have read is found at checkpoints; what is said is what would have been said alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from kolosal.engines.parameters import FlashAttention
from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.schema import GenerateRequest
from tests.engines.worker.helpers import Answer, InProcessWorker, ask, engine_config
from tests.tiny_gguf import N_SWA, Architecture, write_tiny_gguf

SYSTEM = "You are a tiny model that has a common beginning. " * 3


@pytest.fixture(params=[kind for kind in get_args(Architecture) if kind != "llama"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LlamaCppBackend]:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, request.param)
    config = engine_config(
        str(path), n_ctx=512, n_parallel=3, n_threads=1, cache_type_k="f32", cache_type_v="f32",
        flash_attn=FlashAttention.OFF, swa_full=False,
    )  # fmt: skip
    loaded = LlamaCppBackend(config, lambda _: None)
    yield loaded
    loaded.close()


def request(text: str, max_tokens: int = 20) -> GenerateRequest:
    return ask(text, max_tokens=max_tokens, ignore_eos=True)


def alone(backend: LlamaCppBackend, text: str) -> list[int]:
    return InProcessWorker(backend).answer(request(text)).tokens


def cached(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.cached_tokens


def books_equal(worker: InProcessWorker) -> None:
    worker.loop._cache.check_integrity(worker.backend.cells)


def test_what_cannot_be_cut_is_known(backend: LlamaCppBackend) -> None:
    assert (backend.can_trim, backend.info.prompt_cache) == (False, Reuse.WHOLE.value)


def test_a_common_beginning_is_read_once_and_changes_no_answer(backend: LlamaCppBackend) -> None:
    texts = [f"{SYSTEM}{'abc'[number % 3] * (number + N_SWA)}" for number in range(9)]
    together = InProcessWorker(backend, after_step=lambda: books_equal(together))
    for text in texts:
        together.submit(request(text))
    together.run()
    together.check_idle()
    first, *others = together.answers.values()
    assert cached(first) == 0
    assert min(cached(answer) for answer in others) >= len(SYSTEM)
    assert [answer.tokens for answer in together.answers.values()] == [alone(backend, text) for text in texts]


def test_a_conversation_goes_on_where_it_ended(backend: LlamaCppBackend) -> None:
    worker = InProcessWorker(backend)
    first = worker.answer(request(SYSTEM, max_tokens=1))
    text = SYSTEM + " please, as long as you can"
    later = worker.answer(request(text))
    assert first.usage is not None
    assert cached(later) == first.usage.prompt_tokens
    assert later.tokens == alone(backend, text)


def test_a_turn_that_is_written_otherwise_goes_on_where_the_prompt_ended(backend: LlamaCppBackend) -> None:
    """As where a thought is left out of the next turn, and where the last turn is asked for again."""
    worker = InProcessWorker(backend)
    first = worker.answer(request(SYSTEM, max_tokens=8))
    texts = [SYSTEM + "what it did not say", SYSTEM]
    others = [worker.answer(request(text)) for text in texts]
    assert first.usage is not None
    assert [cached(other) for other in others] == [first.usage.prompt_tokens - 1] * 2
    assert [other.tokens for other in others] == [alone(backend, text) for text in texts]


def test_what_parted_once_is_found_by_the_next(backend: LlamaCppBackend) -> None:
    worker = InProcessWorker(backend)
    texts = [f"{SYSTEM}{number}" + "z" * 70 for number in range(3)]
    answers = [worker.answer(request(text)) for text in texts]
    assert [cached(answer) >= len(SYSTEM) for answer in answers] == [False, False, True]
    assert [answer.tokens for answer in answers] == [alone(backend, text) for text in texts]
