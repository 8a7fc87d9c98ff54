"""Which way attention is computed is chosen at load, where nobody has said it, and changes no answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.engines.parameters import FlashAttention
from kolosal.engines.worker.llamacpp import attention
from kolosal.engines.worker.llamacpp.attention import AttentionShape
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from tests.engines.worker.helpers import InProcessWorker, ask, engine_config
from tests.engines.worker.llamacpp.test_backend import PRECISE

SMALL = AttentionShape(head_width=64, n_heads=9, n_kv_heads=3)
SHAPES = [SMALL, AttentionShape(head_width=128, n_heads=64, n_kv_heads=64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_streams", [1, 4])
def test_both_ways_are_measured(shape: AttentionShape, n_streams: int) -> None:
    assert min(attention._Ggml().seconds(shape, n_streams, 256)) > 0


@pytest.mark.parametrize("products_s", [1.0, 9.0])
def test_the_faster_way_is_taken_and_says_the_same(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, products_s: float
) -> None:
    monkeypatch.setattr(attention._Ggml, "seconds", lambda *_, **__: (5.0, products_s))
    answers, ways = [], []
    for way in (FlashAttention.AUTO, FlashAttention.ON):
        parameters = PRECISE | {"flash_attn": way, "n_ubatch": 8}
        backend = LlamaCppBackend(engine_config(str(tiny_gguf), **parameters), lambda _: None)
        answers.append(InProcessWorker(backend).answer(ask("the quick brown fox", max_tokens=40)).tokens)
        ways.append(backend.info.flash_attn)
        backend.close()

    assert answers[0] == answers[1]
    assert ways == ["off" if products_s < 5 else "auto", "on"]


def test_scores_that_would_take_more_than_the_cells_are_not_made(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention._Ggml, "seconds", lambda *_, **__: (5.0, 1.0))
    parameters = PRECISE | {"flash_attn": FlashAttention.AUTO}
    backend = LlamaCppBackend(engine_config(str(tiny_gguf), **parameters), lambda _: None)
    assert backend.info.flash_attn == "auto"
    backend.close()
