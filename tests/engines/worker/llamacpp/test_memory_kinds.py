"""Models whose memory cannot be cut: sliding windows and recurrent states. Right first, reuse where it is possible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from kolosal.engines.parameters import FlashAttention
from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from tests.engines.worker.helpers import InProcessWorker, ask, engine_config
from tests.tiny_gguf import N_SWA, Architecture, write_tiny_gguf


@pytest.fixture(params=[kind for kind in get_args(Architecture) if kind != "llama"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LlamaCppBackend]:
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, request.param)
    config = engine_config(
        str(path), n_ctx=256, n_parallel=3, n_threads=1, cache_type_k="f32", cache_type_v="f32",
        flash_attn=FlashAttention.OFF,
    )  # fmt: skip
    loaded = LlamaCppBackend(config, lambda _: None)
    yield loaded
    loaded.close()


def prompts() -> list[str]:
    """A common beginning longer than the window, then differences."""
    return [f"{'common beginning ' * 3}{'abc'[number % 3] * (number + N_SWA)}" for number in range(9)]


def test_what_cannot_be_cut_is_known(backend: LlamaCppBackend) -> None:
    assert (backend.can_trim, backend.info.prompt_cache) == (False, Reuse.WHOLE.value)


def test_answers_in_a_batch_are_those_given_alone(backend: LlamaCppBackend) -> None:
    requests = [ask(text, max_tokens=20, ignore_eos=True) for text in prompts()]
    together = InProcessWorker(backend)
    for request in requests:
        together.submit(request)
    together.run()
    together.check_idle()
    alone = [InProcessWorker(backend).answer(request).tokens for request in requests]
    assert [answer.tokens for answer in together.answers.values()] == alone


def test_a_conversation_goes_on_where_it_ended(backend: LlamaCppBackend) -> None:
    text = "tell me more and more about it"
    worker = InProcessWorker(backend)
    first = worker.answer(ask(text, max_tokens=1, ignore_eos=True))
    later = worker.answer(ask(text + " please, as long as you can", max_tokens=20, ignore_eos=True))
    alone = InProcessWorker(backend).answer(
        ask(text + " please, as long as you can", max_tokens=20, ignore_eos=True)
    )
    assert first.usage is not None
    assert later.usage is not None
    assert later.usage.cached_tokens == first.usage.prompt_tokens
    assert later.tokens == alone.tokens


def test_another_ending_of_a_kept_conversation_is_computed_from_its_beginning(
    backend: LlamaCppBackend,
) -> None:
    worker = InProcessWorker(backend)
    worker.answer(ask("one beginning, one end", max_tokens=8, ignore_eos=True))
    other = worker.answer(ask("one beginning, another end", max_tokens=8, ignore_eos=True))
    alone = InProcessWorker(backend).answer(ask("one beginning, another end", max_tokens=8, ignore_eos=True))
    assert other.usage is not None
    assert other.usage.cached_tokens == 0
    assert other.tokens == alone.tokens
