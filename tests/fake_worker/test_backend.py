from __future__ import annotations

import pytest

from kolosal.engines.worker.backend import BackendError, DecodeFailed, KVCacheFull
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.sequence import Sequence
from tests.engines.worker.helpers import fake_backend
from tests.fake_worker.backend import BOS, END, FakeSampler, Faults, next_token


def says(prompt: str, count: int = 40) -> str:
    tokens = [BOS, *prompt.encode()]
    said: list[int] = []
    while len(said) < count and (token := next_token(tokens + said)) != END:
        said.append(token)
    return bytes(said).decode()


def chunk(slot: int, start: int, *tokens: int) -> Chunk:
    prompt = [0] * start + [*tokens]
    sequence = Sequence(1, prompt, len(prompt), max_length=99, sampler=FakeSampler(), text=Detokenizer())
    return Chunk(sequence, slot, start, [*tokens], 1)


def test_counts_on_from_the_last_number() -> None:
    assert says("1 apple and 41 pears:", 6) == "42 43 "


def test_counts_from_one_where_there_is_no_number() -> None:
    assert says("Hello:", 6) == "1 2 3 "


@pytest.mark.parametrize("text", ["Hi", "a🙂b", "aabaab", "say </say", "<s>"])
def test_says_what_it_is_told(text: str) -> None:
    assert says(f"<say>{text}</say>") == text


def test_answer_comes_from_the_cells_and_not_from_the_tokens() -> None:
    backend = fake_backend()
    backend.decode([chunk(0, 0, *b"5:")])

    assert backend.sample(FakeSampler(), 0, None) == ord("6")


def test_position_that_does_not_follow_the_cells_is_an_error() -> None:
    with pytest.raises(DecodeFailed, match="position 3 after 0 cells"):
        fake_backend().decode([chunk(0, 3, *b"5:")])


def test_full_cache_computes_nothing() -> None:
    backend = fake_backend(n_ctx=4, n_parallel=1)
    with pytest.raises(KVCacheFull):
        backend.decode([chunk(0, 0, 1, 2), chunk(1, 0, 1, 2, 3)])

    assert backend.cells(0) == 0


def test_closed_sampler_is_not_sampled() -> None:
    backend = fake_backend()
    backend.decode([chunk(0, 0, *b"5:")])
    sampler = FakeSampler()
    sampler.close()
    with pytest.raises(AssertionError, match="after close"):
        backend.sample(sampler, 0, None)


def test_load_error_is_scripted() -> None:
    with pytest.raises(BackendError, match="broken on purpose"):
        fake_backend("load_error")


def test_faults_are_read_from_words() -> None:
    faults = Faults.parse(["load_hang", "step_s=0.5", "decode@7=-3", "crash@9", "stderr=a=b"])

    assert faults == Faults(frozenset(["load_hang"]), 0.5, "a=b", at_step={7: "decode=-3", 9: "crash"})
