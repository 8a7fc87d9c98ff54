"""How a real model's turn may end. That its calls are valid is shown in tests/e2e/test_tools.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kolosal.engines.worker.constraint import ConstraintCompiler
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.schema import (
    Grammar,
    GrammarKind,
)
from tests.chat.vocabulary import may_follow
from tests.engines.worker.helpers import engine_config

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings(
        "ignore:llama_token_get_attr is deprecated:DeprecationWarning"
    ),  # llguidance's
]


@pytest.fixture(scope="module")
def backend(smollm2: Path) -> Iterator[LlamaCppBackend]:
    backend = LlamaCppBackend(
        engine_config(str(smollm2), n_ctx=1024, n_parallel=2, n_threads=1), lambda _: None
    )
    yield backend
    backend.close()


def test_model_that_may_answer_may_end_its_turn_by_every_token_that_ends_one(
    backend: LlamaCppBackend,
) -> None:
    compiler = ConstraintCompiler(backend.constraint_tokenizer)
    constraint = compiler.compile(Grammar(GrammarKind.REGEX, "a*"))
    ends = [token for token in range(backend.info.n_vocab) if backend.is_end(token)]

    assert ends
    assert all(may_follow(constraint, token) for token in ends)
