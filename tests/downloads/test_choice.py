"""Which files of a repository are fetched."""

from __future__ import annotations

import pytest

from kolosal.downloads.choice import (
    RepositoryFile,
    Room,
    choose,
    projector,
    quantisation_of,
    variants,
)
from kolosal.errors import DownloadFailed, InvalidRequest, NotFound

GB = 10**9
PLENTY = Room(100 * GB, 100 * GB)


def files(**sizes: float) -> list[RepositoryFile]:
    """Files by name, in gigabytes; `__` stands for what no keyword may hold: a dash."""
    return [
        RepositoryFile(f"{name.replace('__', '-')}.gguf", int(size * GB), None, "0" * 40)
        for name, size in sizes.items()
    ]


REPOSITORY = files(
    m__Q2_K=3, m__Q4_K_M=5, m__Q8_0=8, m__F16=16, mmproj__m__F16=1, mmproj__m__F32=2, m__imatrix=0.1
)


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"), ("model.q5_k_s.gguf", "Q5_K_S"), ("a/Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ("m-IQ4_XS.gguf", "IQ4_XS"), ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"), ("m-BF16.gguf", "BF16"), ("gpt-oss-MXFP4.gguf", "MXFP4"),
        ("m-TQ1_0.gguf", "TQ1_0"), ("m-Q4_0_4_4.gguf", "Q4_0_4_4"), ("llama-7b.gguf", ""), ("Q8_0.gguf", "Q8_0"),
    ],
)  # fmt: skip
def test_a_name_says_its_quantisation(name: str, quant: str) -> None:
    assert quantisation_of(name) == quant


@pytest.mark.parametrize(
    ("room", "quant"),
    [
        (PLENTY, "Q8_0"),  # more than eight bits are no better
        (Room(7 * GB, 16 * GB), "Q4_K_M"),
        (Room(4 * GB, 8 * GB), "Q2_K"),
        (Room(1 * GB, 2 * GB), "Q2_K"),  # nothing fits: the smallest
    ],
)
def test_the_best_that_fits_is_chosen(room: Room, quant: str) -> None:
    assert choose("r", variants(REPOSITORY), None, room).quant == quant


def test_a_repository_without_quantised_models_gives_what_it_has() -> None:
    assert choose("r", variants(files(m__F32=4, m__F16=2)), None, PLENTY).quant == "F32"


@pytest.mark.parametrize(
    ("wanted", "file"), [("q4_k_m", "m-Q4_K_M"), ("m-Q2_K.gguf", "m-Q2_K"), ("F16", "m-F16")]
)
def test_what_is_named_is_fetched(wanted: str, file: str) -> None:
    assert choose("r", variants(REPOSITORY), wanted, Room(0, 0)).files[0].name == f"{file}.gguf"


def test_a_quantisation_that_is_not_there_is_told_those_that_are() -> None:
    with pytest.raises(NotFound, match=r"^r has no Q5_K_M; it has Q2_K, Q4_K_M, Q8_0, F16$"):
        choose("r", variants(REPOSITORY), "Q5_K_M", PLENTY)


def test_several_models_of_one_quantisation_are_told_apart_by_file() -> None:
    with pytest.raises(
        InvalidRequest, match=r"2 models of Q4_0: name the file, one of a-Q4_0\.gguf, b-Q4_0\.gguf"
    ):
        choose("r", variants(files(a__Q4_0=1, b__Q4_0=2)), "Q4_0", PLENTY)


def test_parts_of_a_model_go_together_and_an_incomplete_one_is_none() -> None:
    parts = files(m__Q8_0__00002__of__00002=2, m__Q8_0__00001__of__00002=2, n__Q4_0__00001__of__00002=1)
    (found,) = variants(parts)
    assert [file.name for file in found.files] == ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"]
    assert (found.quant, found.size) == ("Q8_0", 4 * GB)


def test_a_projector_is_found_beside_the_model() -> None:
    found = projector(REPOSITORY)
    assert found is not None
    assert found.name == "mmproj-m-F16.gguf"
    assert projector(files(m__Q4_0=1)) is None


def test_a_repository_without_models_says_what_to_do() -> None:
    with pytest.raises(DownloadFailed, match="holds no GGUF model: look for one with `kolosal search repo`"):
        choose("hf.co/org/repo", [], None, PLENTY)
